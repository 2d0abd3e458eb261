//! The extender's process, a client like kube-scheduler's, and brute force for what it answers.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::cluster::{Cluster, claims};

const GIB: u64 = 1 << 30;

/// The release binary as its own process; killed when this is dropped.
pub struct Extender {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Extender {
    /// Start it and wait until its index is complete.
    pub fn start(cluster: &Cluster) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, cluster.server.kubeconfig())?;
        let own = std::env::current_exe().context("cannot find this program")?;
        let program = own.with_file_name("bedplate-extender");
        ensure!(program.is_file(), "{} is missing: run `make bench`", program.display());
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let child = Command::new(program)
            .args(["--log", "warn", "--listen", &address.to_string()])
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .stdout(Stdio::null())
            .spawn()
            .context("cannot be started")?;
        let extender = Self { child, address, _folder: folder };
        let until = Instant::now() + Duration::from_mins(2);
        loop {
            let ready = extender.client().and_then(|mut client| client.send(&Sent::new("GET", "/readyz", b"")));
            match ready {
                Ok((200, _)) => return Ok(extender),
                other if Instant::now() > until => bail!("not ready in time: {other:?}"),
                // Loopback: asking again costs nothing, and the index is complete within seconds.
                _ => std::thread::park_timeout(Duration::from_millis(50)),
            }
        }
    }

    /// A connection.
    pub fn client(&self) -> Result<Client> {
        let stream = TcpStream::connect(self.address).context("cannot connect")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Client { stream, buffer: Vec::new(), filled: 0 })
    }

    /// Resident memory in MiB.
    pub fn resident_mib(&self) -> Result<f64> {
        let pid = i32::try_from(self.child.id())?;
        let pages = procfs::process::Process::new(pid)?.statm()?.resident;
        Ok((pages * procfs::page_size()) as f64 / f64::from(1 << 20))
    }
}

impl Drop for Extender {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A request whole, as it goes over the wire: made before it is timed.
pub struct Sent(Vec<u8>);

impl Sent {
    pub fn post(path: &str, body: &[u8]) -> Self {
        Self::new("POST", path, body)
    }

    fn new(method: &str, path: &str, body: &[u8]) -> Self {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: extender\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        Self([head.as_bytes(), body].concat())
    }
}

/// A keep-alive HTTP/1.1 client that does no more than is needed.
pub struct Client {
    stream: TcpStream,
    /// What was read, and the room for more.
    buffer: Vec<u8>,
    filled: usize,
}

impl Client {
    /// Ask, and take only 200 for an answer.
    pub fn ask(&mut self, request: &Sent) -> Result<&[u8]> {
        let (status, range) = self.send(request)?;
        let body = &self.buffer[range];
        ensure!(status == 200, "answered {status}: {}", String::from_utf8_lossy(body));
        Ok(body)
    }

    fn send(&mut self, request: &Sent) -> Result<(u16, std::ops::Range<usize>)> {
        self.stream.write_all(&request.0)?;
        self.filled = 0;
        let end = loop {
            if let Some(end) = memchr::memmem::find(&self.buffer[..self.filled], b"\r\n\r\n") {
                break end + 4;
            }
            self.more()?;
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status")?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
        let length = length.context("no content-length: keep-alive would break")?;
        while self.filled < end + length {
            self.more()?;
        }
        Ok((status, end..end + length))
    }

    fn more(&mut self) -> Result<()> {
        if self.filled == self.buffer.len() {
            self.buffer.resize((2 * self.filled).max(1 << 20), 0);
        }
        let count = self.stream.read(&mut self.buffer[self.filled..])?;
        ensure!(count > 0, "the connection was closed");
        self.filled += count;
        Ok(())
    }
}

/// A pod's requests.
pub struct Question {
    pod: usize,
    nodes: Vec<usize>,
    pub filter: Sent,
    pub prioritize: Sent,
}

impl Question {
    /// Ask once, so that prioritize can name the survivors.
    pub fn prepare(cluster: &Cluster, client: &mut Client, nodes: Vec<usize>, pod: usize) -> Result<Self> {
        let filter = Sent::post("/filter", &cluster.request(Some(pod), &nodes));
        let survivors = truth(cluster, &nodes, pod);
        let prioritize = Sent::post("/prioritize", &cluster.request(Some(pod), &survivors));
        let question = Self { pod, nodes, filter, prioritize };
        question.check(cluster, client)?;
        Ok(question)
    }

    /// Compare an answer with brute force.
    pub fn check(&self, cluster: &Cluster, client: &mut Client) -> Result<()> {
        let expected: BTreeSet<&str> =
            truth(cluster, &self.nodes, self.pod).into_iter().map(|node| cluster.names[node].as_str()).collect();
        let answer: Value = serde_json::from_slice(client.ask(&self.filter)?)?;
        let names = answer["NodeNames"].as_array().context("no NodeNames")?;
        let found: BTreeSet<&str> = names.iter().filter_map(Value::as_str).collect();
        ensure!(!found.is_empty() && found.len() < self.nodes.len(), "a question that tells nothing apart");
        ensure!(found == expected, "pod-{}: {} nodes found, {} by brute force", self.pod, found.len(), expected.len());
        let scores: Value = serde_json::from_slice(client.ask(&self.prioritize)?)?;
        let scores = scores.as_array().context("no scores")?;
        ensure!(scores.len() == found.len(), "{} scores for {} nodes", scores.len(), found.len());
        ensure!(scores.iter().all(|score| score["Score"].as_i64().is_some_and(|score| (0..=10).contains(&score))));
        Ok(())
    }
}

/// The nodes that fit, by trying every pair of pools.
fn truth(cluster: &Cluster, nodes: &[usize], pod: usize) -> Vec<usize> {
    let [first, second] = claims(pod);
    let media = |class: &str, media: &str| match class {
        "any" => true,
        "ssd" => media == "ssd" || media == "nvme",
        _ => media == class,
    };
    let fits = |node: &usize| {
        let pools = &cluster.pools[*node];
        (0..pools.len()).any(|a| {
            (0..pools.len()).any(|b| {
                let both = if a == b { first.1 + second.1 } else { first.1 } * GIB;
                media(first.0, pools[a].media)
                    && media(second.0, pools[b].media)
                    && both <= pools[a].free
                    && second.1 * GIB <= pools[b].free
            })
        })
    };
    nodes.iter().copied().filter(fits).collect()
}

//! The extender as its own process, fed by an embedded API server, asked over loopback HTTP as kube-scheduler asks.
//!
//! Pods have two claims each; one answer in a hundred is compared with brute force over what the nodes were told to say.
//! Full list, as listed and as a scheduler's workers mix it, and the sample that a scheduler takes by default. Only the two round trips are timed, not what the
//! scheduler does with them.

mod ask;
mod cluster;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::Settings;
use crate::report::Report;
use ask::{Client, Extender, Question, Sent};
use cluster::{Cluster, Size};

/// Nodes of each size measured, and what p99 must stay below, in milliseconds.
const SIZES: [(usize, Option<f64>); 4] = [(100, None), (1_000, None), (5_000, Some(2.0)), (15_000, Some(6.0))];
/// Pods asked about in turn by one client.
const PODS: usize = 8;
/// Clients that ask at once.
const CLIENTS: usize = 16;

/// Measure all sizes.
pub fn measure(settings: &Settings, report: &mut Report) -> Result<()> {
    println!("extender: filter + prioritize over loopback HTTP, two claims a pod, 4 pools a node");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for (nodes, reach) in SIZES.into_iter().filter(|(nodes, _)| *nodes <= settings.extender_nodes) {
        let whole = nodes == 5_000;
        let size =
            Size { nodes, volumes_a_node: if whole { settings.extender_volumes } else { 0 }, pods: PODS * CLIENTS };
        let begun = Instant::now();
        let cluster = runtime.block_on(Cluster::make(&size)).with_context(|| format!("a cluster of {nodes} nodes"))?;
        let extender = Extender::start(&cluster).context("the extender")?;
        println!("  {nodes} nodes told in {:.1} s", begun.elapsed().as_secs_f64());
        let all: Vec<usize> = (0..nodes).collect();
        let listed = |_| all.clone();
        let full = alone(&cluster, &extender, &listed, settings.extender_asks)?;
        let name = format!("extender.both.p99_ms.{nodes}");
        match reach {
            Some(most) => report.add_with_reach(&name, "ms", vec![full.p99], ("<", most)),
            None => report.add(&name, "ms", vec![full.p99]),
        }
        report.add(&format!("extender.both.p50_ms.{nodes}"), "ms", vec![full.p50]);
        let sample: Vec<usize> = (0..sampled(nodes)).collect();
        let part = alone(&cluster, &extender, &|_| sample.clone(), settings.extender_asks)?;
        report.add(&format!("extender.both_sampled.p99_ms.{nodes}"), "ms", vec![part.p99]);
        let mixed = alone(&cluster, &extender, &|pod| interleaved(nodes, pod), settings.extender_asks)?;
        report.add(&format!("extender.both_interleaved.p99_ms.{nodes}"), "ms", vec![mixed.p99]);
        report.add(&format!("extender.both_interleaved.p50_ms.{nodes}"), "ms", vec![mixed.p50]);
        if whole {
            let echo = echo(&cluster, &extender, &all, settings.extender_asks)?;
            report.add(&format!("extender.echo.p99_ms.{nodes}"), "ms", vec![echo]);
            let rate = crowd(&cluster, &extender, &listed, settings.extender_seconds)?;
            let name = format!("extender.pods_per_s.{nodes}.clients{CLIENTS}");
            report.add_with_reach(&name, "1/s", vec![rate], (">=", 1_500.0));
            let resident = extender.resident_mib()?;
            report.add_with_reach(&format!("extender.rss_mib.{nodes}"), "MiB", vec![resident], ("<", 200.0));
        }
    }
    Ok(())
}

/// How many feasible nodes a scheduler looks for by default: 50 % less one a 125 nodes, at least 5 %, at least 100.
fn sampled(nodes: usize) -> usize {
    (nodes * 50_usize.saturating_sub(nodes / 125).max(5) / 100).max(100).min(nodes)
}

/// Every node in an order that differs from pod to pod: a scheduler with in-tree filters looks at nodes with sixteen workers,
/// a chunk each at a time, and lists them as they come out.
fn interleaved(nodes: usize, pod: usize) -> Vec<usize> {
    let chunk = nodes.isqrt().max(1);
    let mut chunks = (0..nodes).step_by(chunk).map(|start| start..(start + chunk).min(nodes));
    let mut workers: Vec<std::ops::Range<usize>> = chunks.by_ref().take(CLIENTS).collect();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(pod as u64 + 1);
    let mut order = Vec::with_capacity(nodes);
    while !workers.is_empty() {
        // Knuth's MMIX: which worker is the next one to come out with a node.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = (random >> 33) as usize % workers.len();
        match workers[at].next() {
            Some(node) => order.push(node),
            None => match chunks.next() {
                Some(chunk) => workers[at] = chunk,
                None => drop(workers.swap_remove(at)),
            },
        }
    }
    order
}

/// The nodes that are asked about for a pod, in the order in which they are named.
type Order<'a> = dyn Fn(usize) -> Vec<usize> + 'a;

struct Latency {
    p50: f64,
    p99: f64,
}

fn latency(mut times: Vec<Duration>) -> Latency {
    times.sort();
    let at = |share: usize| times.get(times.len() * share / 100).map_or(0.0, |time| time.as_secs_f64() * 1e3);
    Latency { p50: at(50), p99: at(99) }
}

/// One client, filter and prioritize one after the other.
fn alone(cluster: &Cluster, extender: &Extender, order: &Order, asks: usize) -> Result<Latency> {
    let mut client = extender.client()?;
    let mut questions = questions(cluster, &mut client, order, 0)?;
    let mut times = Vec::with_capacity(asks);
    for i in 0..asks {
        let at = i % questions.len();
        let question = &mut questions[at];
        let begun = Instant::now();
        client.ask(&question.filter)?;
        client.ask(&question.prioritize)?;
        times.push(begun.elapsed());
        if i % 100 == 99 {
            question.check(cluster, &mut client)?;
            // Brute force took the caches that both share, and would take every hundredth time that is measured.
            client.ask(&question.filter)?;
            client.ask(&question.prioritize)?;
        }
    }
    Ok(latency(times))
}

fn questions(cluster: &Cluster, client: &mut Client, order: &Order, of: usize) -> Result<Vec<Question>> {
    (of * PODS..(of + 1) * PODS).map(|pod| Question::prepare(cluster, client, order(pod), pod)).collect()
}

/// One client asks about a pod without claims.
fn echo(cluster: &Cluster, extender: &Extender, nodes: &[usize], asks: usize) -> Result<f64> {
    let mut client = extender.client()?;
    let request = Sent::post("/filter", &cluster.request(None, nodes));
    let mut times = Vec::with_capacity(asks);
    for _ in 0..asks {
        let begun = Instant::now();
        let answer = client.ask(&request)?;
        times.push(begun.elapsed());
        ensure!(answer.len() > nodes.len() * 8, "the echo is too short");
    }
    Ok(latency(times).p99)
}

/// Many clients at once: pods a second.
fn crowd(cluster: &Cluster, extender: &Extender, order: &Order, seconds: u64) -> Result<f64> {
    let prepared: Vec<(Client, Vec<Question>)> = (0..CLIENTS)
        .map(|of| {
            let mut client = extender.client()?;
            let questions = questions(cluster, &mut client, order, of)?;
            Ok((client, questions))
        })
        .collect::<Result<_>>()?;
    let begun = Instant::now();
    let until = begun + Duration::from_secs(seconds);
    let counts: Vec<Result<usize>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (prepared.into_iter())
            .map(|(mut client, questions)| {
                scope.spawn(move || {
                    let mut count = 0;
                    while Instant::now() < until {
                        let question = &questions[count % questions.len()];
                        client.ask(&question.filter)?;
                        client.ask(&question.prioritize)?;
                        count += 1;
                    }
                    Ok(count)
                })
            })
            .collect();
        let joined = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined.map(|done| done.unwrap_or_else(|_| Err(anyhow::anyhow!("a client panicked")))).collect()
    });
    let seconds = begun.elapsed().as_secs_f64();
    let count: usize = counts.into_iter().sum::<Result<usize>>()?;
    Ok(count as f64 / seconds)
}

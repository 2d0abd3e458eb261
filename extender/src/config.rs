//! What the extender is told at its start: flags and their environment, checked whole.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bedplate_api::names;
use clap::Parser;

/// Hardware-aware local storage: the scheduler extender.
#[derive(Clone, Debug, Parser)]
#[command(version, about)]
pub struct Args {
    /// Where to listen.
    #[arg(long, env = "BEDPLATE_LISTEN", default_value = "127.0.0.1:9817")]
    pub listen: SocketAddr,
    /// Kubeconfig of the cluster; without it the in-cluster configuration or the usual places.
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the object that is touched to wake rejected pods.
    #[arg(long, env = "POD_NAMESPACE", default_value = names::NAMESPACE)]
    pub namespace: String,
    /// Serve HTTPS with this certificate chain (PEM); read again when it changes.
    #[arg(long, env = "BEDPLATE_TLS_CERT", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, env = "BEDPLATE_TLS_KEY", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Ask clients for a certificate of this authority (PEM).
    #[arg(long, env = "BEDPLATE_TLS_CLIENT_CA", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,
    /// The largest request body in bytes.
    #[arg(long, env = "BEDPLATE_MAX_BODY", default_value_t = 64 << 20, value_parser = clap::value_parser!(u64).range(MIN_BODY..))]
    pub max_body: u64,
    /// Requests worked on at once.
    #[arg(long, env = "BEDPLATE_MAX_REQUESTS", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub max_requests: u64,
    /// Longest time for one request in milliseconds; the scheduler gives up at 500.
    #[arg(long, env = "BEDPLATE_REQUEST_TIMEOUT_MS", default_value_t = 400, value_parser = clap::value_parser!(u64).range(10..500))]
    pub request_timeout_ms: u64,
    /// What to log: error, warn, info, debug, or a filter such as `bedplate_extender=debug,info`.
    #[arg(long, env = "BEDPLATE_LOG", default_value = "info")]
    pub log: String,
    /// Log as JSON lines.
    #[arg(long, env = "BEDPLATE_LOG_JSON")]
    pub log_json: bool,
}

/// The smallest limit of bodies: 15,000 names and a pod fit many times.
const MIN_BODY: u64 = 16 << 20;

/// How requests are served.
#[derive(Clone, Debug)]
pub struct Config {
    /// HTTPS, if any.
    pub tls: Option<TlsFiles>,
    /// The largest body in bytes.
    pub max_body: usize,
    /// Requests at once.
    pub max_requests: usize,
    /// Longest time of one request.
    pub timeout: Duration,
}

/// Where certificates are.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The chain.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
    /// The authority of clients; without it none is asked for a certificate.
    pub client_ca: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self { tls: None, max_body: 64 << 20, max_requests: 64, timeout: Duration::from_millis(400) }
    }
}

impl From<&Args> for Config {
    fn from(args: &Args) -> Self {
        let tls = args.tls_cert.clone().zip(args.tls_key.clone());
        Self {
            tls: tls.map(|(cert, key)| TlsFiles { cert, key, client_ca: args.tls_client_ca.clone() }),
            max_body: usize::try_from(args.max_body).unwrap_or(usize::MAX),
            max_requests: usize::try_from(args.max_requests).unwrap_or(usize::MAX),
            timeout: Duration::from_millis(args.request_timeout_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(more: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from(["bedplate-extender"].iter().chain(more))
    }

    #[test]
    fn limits_that_would_break_the_scheduler_are_refused() {
        assert!(parse(&["--request-timeout-ms", "500"]).is_err(), "the scheduler has given up by then");
        assert!(parse(&["--max-body", "1048576"]).is_err(), "a large cluster's names must fit");
        assert!(parse(&["--tls-cert", "c"]).is_err(), "no key");
        let args = parse(&["--tls-cert", "c", "--tls-key", "k", "--tls-client-ca", "a"]).unwrap();
        assert!(Config::from(&args).tls.unwrap().client_ca.is_some());
        assert!(Config::from(&parse(&[]).unwrap()).tls.is_none());
    }
}

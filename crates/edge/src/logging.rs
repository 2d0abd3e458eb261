//! Logs on standard error: text without colours, or JSON.

use tracing_subscriber::EnvFilter;

/// A filter that is none.
#[derive(Debug, thiserror::Error)]
#[error("--log {filter:?} is no filter; use info, debug or crate=level")]
pub struct BadFilter {
    filter: String,
    #[source]
    source: tracing_subscriber::filter::ParseError,
}

/// Begin to log what `filter` lets through; once a process.
///
/// # Errors
/// Where the filter cannot be read.
pub fn begin(filter: &str, json: bool) -> Result<(), BadFilter> {
    let filter = EnvFilter::try_new(filter).map_err(|source| BadFilter { filter: filter.to_owned(), source })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json {
        builder.json().init();
    } else {
        // Logs end in files and in the container runtime's journal: colours would be noise there.
        builder.with_ansi(false).init();
    }
    Ok(())
}

//! Writes the CRDs, one file each, into the folder it is given. Run by `make generate`.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: bedplate-crds FOLDER");
        return ExitCode::from(2);
    };
    let files = match bedplate_api::crds::files() {
        Ok(files) => files,
        Err(error) => {
            eprintln!("bedplate-crds: {error}");
            return ExitCode::FAILURE;
        }
    };
    for (name, text) in files {
        let path = folder.join(name);
        if let Err(error) = std::fs::write(&path, text) {
            eprintln!("bedplate-crds: {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

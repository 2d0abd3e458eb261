//! Writes the CRDs, one file each, into the folder it is given. Run by `make generate`.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: bedplate-crds FOLDER");
        return ExitCode::from(2);
    };
    for crd in bedplate_api::crds::all() {
        let plural = &crd.spec.names.plural;
        let path = folder.join(format!("{plural}.yaml"));
        let text = serde_saphyr::to_string(&crd).map_err(|e| e.to_string());
        let head = "# Generated from crates/api by `make generate`; do not edit.\n";
        let written = text.and_then(|text| std::fs::write(&path, format!("{head}{text}")).map_err(|e| e.to_string()));
        if let Err(error) = written {
            eprintln!("bedplate-crds: {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

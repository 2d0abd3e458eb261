//! A real API server to replay against, if there is one: a cluster named by `BEDPLATE_E2E_KUBECONFIG`, or a control plane
//! of the test's own where its programs are installed. Writes only to the namespace, node, class and volume of the
//! recorded cases.

use bedplate_tests::control_plane::{ControlPlane, programs};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tempfile::TempDir;

use crate::setup;

/// A server that answers.
pub struct Real {
    pub client: Client,
    /// True if kube-controller-manager runs beside it.
    pub controllers: bool,
    _own: Option<(ControlPlane, TempDir)>,
}

/// The server to replay against; None if there is none.
pub async fn server() -> Option<Real> {
    let (path, controllers, own) = if let Some(path) = std::env::var_os("BEDPLATE_E2E_KUBECONFIG") {
        (path.into(), true, None)
    } else {
        let programs = programs()?;
        let controllers = programs.join("kube-controller-manager").is_file();
        let start = move || {
            let folder = TempDir::new()?;
            let mut plane = ControlPlane::start(&programs, folder.path())?;
            if controllers {
                plane = plane.with_controllers()?;
            }
            anyhow::Ok((plane.admin()?, plane, folder))
        };
        let started = tokio::task::spawn_blocking(start).await.expect("no panic");
        let (path, plane, folder) = started.expect("the installed control plane starts");
        (path, controllers, Some((plane, folder)))
    };
    let file = Kubeconfig::read_from(path).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.expect("its context");
    Some(Real { client: setup::client(config).expect("a client"), controllers, _own: own })
}

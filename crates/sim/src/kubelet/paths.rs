//! Where a kubelet keeps things below its root: the real one's layout, which drivers may rely on. Pure.

use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// One volume in one pod, as the driver knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Name of the PersistentVolume.
    pub volume: String,
    pub driver: String,
    pub handle: String,
    pub pod: String,
    pub block: bool,
}

impl Place {
    /// The volume's own folder for the driver's global mount.
    pub fn staging(&self, root: &Path) -> PathBuf {
        let csi = root.join("plugins/kubernetes.io/csi");
        if self.block {
            return csi.join("volumeDevices/staging").join(&self.volume);
        }
        let digest = hex::encode(Sha256::digest(self.handle.as_bytes()));
        csi.join(&self.driver).join(digest).join("globalmount")
    }

    /// What the driver makes for the pod: a mount, or a device.
    pub fn target(&self, root: &Path) -> PathBuf {
        if self.block {
            let devices = root.join("plugins/kubernetes.io/csi/volumeDevices/publish");
            return devices.join(&self.volume).join(&self.pod);
        }
        self.in_pod(root).join("mount")
    }

    /// Below the pod's folder: the folder around the mount, or a link to the device.
    pub fn in_pod(&self, root: &Path) -> PathBuf {
        pod_volumes(root, &self.pod, self.block).join(&self.volume)
    }

    /// The note by which a later kubelet knows the volume.
    pub fn note(&self, root: &Path) -> PathBuf {
        note(root, &self.pod, &self.volume, self.block)
    }
}

/// See [`Place::note`].
pub(super) fn note(root: &Path, pod: &str, volume: &str, block: bool) -> PathBuf {
    let folder = if block {
        root.join("plugins/kubernetes.io/csi/volumeDevices").join(volume).join("data")
    } else {
        pod_volumes(root, pod, false).join(volume)
    };
    folder.join("vol_data.json")
}

/// Folder of one pod.
pub(super) fn pod(root: &Path, uid: &str) -> PathBuf {
    root.join("pods").join(uid)
}

/// Folder of a pod's CSI volumes of one mode.
pub(super) fn pod_volumes(root: &Path, uid: &str, block: bool) -> PathBuf {
    pod(root, uid).join(if block { "volumeDevices" } else { "volumes" }).join("kubernetes.io~csi")
}

/// Folder of an emptyDir.
pub(super) fn empty_dir(root: &Path, uid: &str, name: &str) -> PathBuf {
    pod(root, uid).join("volumes/kubernetes.io~empty-dir").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_real_kubelets() {
        let root = Path::new("/k");
        let mount = Place {
            volume: "pvc-1".into(),
            driver: "bedplate.dev".into(),
            handle: "abc".into(),
            pod: "u".into(),
            block: false,
        };
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let staging = format!("/k/plugins/kubernetes.io/csi/bedplate.dev/{digest}/globalmount");
        assert_eq!(mount.staging(root), Path::new(&staging));
        assert_eq!(mount.target(root), Path::new("/k/pods/u/volumes/kubernetes.io~csi/pvc-1/mount"));
        assert_eq!(mount.note(root), Path::new("/k/pods/u/volumes/kubernetes.io~csi/pvc-1/vol_data.json"));
        let block = Place { block: true, ..mount };
        let devices = "/k/plugins/kubernetes.io/csi/volumeDevices";
        assert_eq!(block.staging(root), Path::new(&format!("{devices}/staging/pvc-1")));
        assert_eq!(block.target(root), Path::new(&format!("{devices}/publish/pvc-1/u")));
        assert_eq!(block.in_pod(root), Path::new("/k/pods/u/volumeDevices/kubernetes.io~csi/pvc-1"));
        assert_eq!(block.note(root), Path::new(&format!("{devices}/pvc-1/data/vol_data.json")));
    }
}

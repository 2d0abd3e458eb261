//! Brings the volumes of a pod up and down through their drivers: stage, publish, unpublish, unstage, with the real
//! kubelet's paths, arguments and order. A volume is unstaged only when no other pod on this node holds it.

use super::Kubelet;
use super::paths::{self, Place};
use bedplate_csi::v1::node_client::NodeClient;
use bedplate_csi::v1::node_service_capability::Type;
use bedplate_csi::v1::node_service_capability::rpc::Type as Rpc;
use bedplate_csi::v1::volume_capability::access_mode::Mode;
use bedplate_csi::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use bedplate_csi::v1::{
    NodeGetCapabilitiesRequest, NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest,
    NodeUnstageVolumeRequest, VolumeCapability,
};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::CSIDriver;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tonic::Request;
use tonic::transport::Channel;

/// The real kubelet's limit for one call.
const CALL: Duration = Duration::from_mins(2);

/// In the words of the event; the driver's own where it spoke.
pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL);
    request
}

fn rpc(status: &tonic::Status) -> Failure {
    format!("rpc error: code = {:?} desc = {}", status.code(), status.message()).into()
}

impl Kubelet {
    async fn node_client(&self, driver: &str) -> Result<NodeClient<Channel>, Failure> {
        let known = self.drivers.lock().get(driver).cloned();
        let known =
            known.ok_or_else(|| format!("driver name {driver} not found in the list of registered CSI drivers"))?;
        Ok(NodeClient::new(bedplate_csi::client::connect(&known.endpoint).await?))
    }

    fn lock(&self, volume: &str) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(self.locks.lock().entry(volume.to_owned()).or_default())
    }

    /// Brings the volume of a claim up for a pod. Where it is then, for the container.
    pub(super) async fn mount(&self, pod: &Pod, claim: &str, read_only: bool) -> Result<(PathBuf, bool), Failure> {
        let (space, root) = (pod.namespace().unwrap_or_default(), &self.options.root);
        let claim = Api::<PersistentVolumeClaim>::namespaced(self.client.clone(), &space).get(claim).await?;
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(format!("can't start pod because PVC {space}/{} is being deleted", claim.name_any()).into());
        }
        let bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).filter(|_| bound);
        let name = name.ok_or_else(|| format!("PVC {space}/{} is not bound", claim.name_any()))?;
        let volume = Api::<PersistentVolume>::all(self.client.clone()).get(&name).await?;
        let spec = volume.spec.unwrap_or_default();
        if spec.claim_ref.as_ref().and_then(|holder| holder.uid.as_ref()) != claim.metadata.uid.as_ref() {
            return Err(format!("PV {name} is not bound to PVC {space}/{}", claim.name_any()).into());
        }
        let csi = spec.csi.ok_or_else(|| format!("PV {name} is not a CSI volume"))?;
        let object = Api::<CSIDriver>::all(self.client.clone()).get_opt(&csi.driver).await?;
        let object = object.map(|object| object.spec);
        if object.as_ref().is_none_or(|object| object.attach_required != Some(false)) {
            return Err(
                format!("CSIDriver {} must say attachRequired: false; nothing attaches here", csi.driver).into()
            );
        }
        let block = spec.volume_mode.as_deref() == Some("Block");
        let pod_uid = pod.uid().unwrap_or_default();
        let place = Place { volume: name, driver: csi.driver, handle: csi.volume_handle, pod: pod_uid, block };
        let mut client = self.node_client(&place.driver).await?;
        let capabilities = client.node_get_capabilities(timed(NodeGetCapabilitiesRequest {})).await;
        let capabilities = capabilities.map_err(|status| rpc(&status))?.into_inner().capabilities;
        let can = |wanted: Rpc| {
            let mut kinds = capabilities.iter().filter_map(|capability| capability.r#type.as_ref());
            kinds.any(|kind| matches!(kind, Type::Rpc(rpc) if rpc.r#type == wanted as i32))
        };
        let fs_type = csi.fs_type.unwrap_or_default();
        let mount_flags = spec.mount_options.unwrap_or_default();
        let access_type = if block {
            AccessType::Block(BlockVolume {})
        } else {
            AccessType::Mount(MountVolume { fs_type, mount_flags, volume_mount_group: String::new() })
        };
        let mode = access_mode(spec.access_modes.as_deref().unwrap_or_default(), can(Rpc::SingleNodeMultiWriter));
        let access_mode = Some(AccessMode { mode: mode as i32 });
        let volume_capability = Some(VolumeCapability { access_type: Some(access_type), access_mode });
        let mut volume_context: HashMap<String, String> =
            csi.volume_attributes.unwrap_or_default().into_iter().collect();
        remember(root, &place, &self.options.node)?;
        let staging = place.staging(root);
        let mut staging_target_path = String::new();
        let lock = self.lock(&place.volume);
        let _held = lock.lock().await;
        if can(Rpc::StageUnstageVolume) {
            staging_target_path = staging.display().to_string();
            fs::create_dir_all(&staging)?;
            let stage = NodeStageVolumeRequest {
                volume_id: place.handle.clone(),
                publish_context: HashMap::new(),
                staging_target_path: staging_target_path.clone(),
                volume_capability: volume_capability.clone(),
                secrets: HashMap::new(),
                volume_context: volume_context.clone(),
            };
            client.node_stage_volume(timed(stage)).await.map_err(|status| rpc(&status))?;
        }
        if object.is_some_and(|object| object.pod_info_on_mount == Some(true)) {
            volume_context.extend(pod_info(pod));
        }
        let target = place.target(root);
        fs::create_dir_all(target.parent().unwrap_or(root))?;
        let publish = NodePublishVolumeRequest {
            volume_id: place.handle.clone(),
            publish_context: HashMap::new(),
            staging_target_path,
            target_path: target.display().to_string(),
            volume_capability,
            readonly: read_only,
            secrets: HashMap::new(),
            volume_context,
        };
        client.node_publish_volume(timed(publish)).await.map_err(|status| rpc(&status))?;
        Ok((target, block))
    }

    /// Takes down every CSI volume that notes on disk give to this pod, and then its folder.
    pub(super) async fn unmount_all(&self, uid: &str) -> Result<(), Failure> {
        let root = &self.options.root;
        for place in places(root, uid) {
            let lock = self.lock(&place.volume);
            let _held = lock.lock().await;
            let mut client = self.node_client(&place.driver).await?;
            let target = place.target(root);
            let (volume_id, target_path) = (place.handle.clone(), target.display().to_string());
            let unpublish = NodeUnpublishVolumeRequest { volume_id, target_path };
            client.node_unpublish_volume(timed(unpublish)).await.map_err(|status| rpc(&status))?;
            gone(fs::remove_dir(&target).or_else(|_| fs::remove_file(&target)))?;
            let others = pods(root).into_iter().filter(|other| other != uid);
            let held = others.flat_map(|other| places(root, &other)).any(|other| other.volume == place.volume);
            let staging = place.staging(root);
            if !held && staging.exists() {
                let (volume_id, staging_target_path) = (place.handle.clone(), staging.display().to_string());
                let unstage = NodeUnstageVolumeRequest { volume_id, staging_target_path };
                client.node_unstage_volume(timed(unstage)).await.map_err(|status| rpc(&status))?;
                gone(fs::remove_dir(&staging))?;
                gone(fs::remove_dir(staging.parent().filter(|_| !place.block).unwrap_or(&staging)))?;
            }
            // The note goes last: until then a later kubelet would do all this again.
            if place.block {
                gone(fs::remove_file(place.in_pod(root)))?;
            }
            if !place.block || !held {
                gone(fs::remove_file(place.note(root)))?;
            }
            if !place.block {
                gone(fs::remove_dir(place.in_pod(root)))?;
            }
        }
        for folder in ["volumes/kubernetes.io~csi", "volumeDevices/kubernetes.io~csi", "volumeDevices"] {
            gone(fs::remove_dir(paths::pod(root, uid).join(folder)))?;
        }
        gone(fs::remove_dir_all(paths::empty_dir(root, uid, "")))?;
        gone(fs::remove_dir(paths::pod(root, uid).join("volumes")))?;
        gone(fs::remove_dir(paths::pod(root, uid)))?;
        Ok(())
    }
}

/// It is as well if there was nothing.
fn gone(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn remember(root: &Path, place: &Place, node: &str) -> std::io::Result<()> {
    let note = place.note(root);
    fs::create_dir_all(note.parent().unwrap_or(root))?;
    let data = json!({
        "attachmentID": "",
        "driverName": place.driver,
        "nodeName": node,
        "specVolID": place.volume,
        "volumeHandle": place.handle,
        "volumeLifecycleMode": "Persistent",
    });
    fs::write(note, data.to_string())?;
    let link = place.in_pod(root);
    if place.block && link.symlink_metadata().is_err() {
        fs::create_dir_all(link.parent().unwrap_or(root))?;
        std::os::unix::fs::symlink(place.target(root), link)?;
    }
    Ok(())
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Pods that have a folder.
pub(super) fn pods(root: &Path) -> Vec<String> {
    names_in(&root.join("pods"))
}

/// The CSI volumes that a pod has, or was about to get, by the notes on disk.
fn places(root: &Path, pod: &str) -> Vec<Place> {
    let of_mode = |block: bool| {
        let names = names_in(&paths::pod_volumes(root, pod, block)).into_iter();
        names.filter_map(move |volume| {
            let text = fs::read_to_string(paths::note(root, pod, &volume, block)).ok()?;
            let data: Value = serde_json::from_str(&text).ok()?;
            let field = |key: &str| data[key].as_str().map(str::to_owned);
            let (driver, handle) = (field("driverName")?, field("volumeHandle")?);
            Some(Place { volume, driver, handle, pod: pod.to_owned(), block })
        })
    };
    of_mode(false).chain(of_mode(true)).collect()
}

fn access_mode(modes: &[String], multi_writer: bool) -> Mode {
    let has = |mode: &str| modes.iter().any(|it| it == mode);
    if has("ReadWriteMany") {
        Mode::MultiNodeMultiWriter
    } else if has("ReadOnlyMany") && !has("ReadWriteOnce") {
        Mode::MultiNodeReaderOnly
    } else if !multi_writer {
        Mode::SingleNodeWriter
    } else if has("ReadWriteOncePod") {
        Mode::SingleNodeSingleWriter
    } else {
        Mode::SingleNodeMultiWriter
    }
}

fn pod_info(pod: &Pod) -> [(String, String); 5] {
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone()).unwrap_or_default();
    [
        ("csi.storage.k8s.io/pod.name".to_owned(), pod.name_any()),
        ("csi.storage.k8s.io/pod.namespace".to_owned(), pod.namespace().unwrap_or_default()),
        ("csi.storage.k8s.io/pod.uid".to_owned(), pod.uid().unwrap_or_default()),
        ("csi.storage.k8s.io/serviceAccount.name".to_owned(), account),
        ("csi.storage.k8s.io/ephemeral".to_owned(), "false".to_owned()),
    ]
}

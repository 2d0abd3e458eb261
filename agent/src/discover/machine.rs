//! What the machine is: DMI and hypervisor for reading model names aright, host facts for the report's head.

use bedplate_core::bytes::Bytes;
use bedplate_core::media::MachineIdentity;
use serde::Serialize;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use super::attributes::Attributes;

/// The host, for people; nothing is decided by it.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostFacts {
    /// Host name.
    pub name: Option<String>,
    /// Kernel release.
    pub kernel: Option<String>,
    /// Operating system.
    pub os: Option<String>,
    /// Processor architecture.
    pub architecture: String,
    /// Processors usable by this process.
    pub processors: usize,
    /// Memory in bytes.
    pub memory: Option<Bytes>,
}

pub(super) fn host() -> HostFacts {
    let system =
        System::new_with_specifics(RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram()));
    HostFacts {
        name: System::host_name().ok(),
        kernel: System::kernel_version().ok(),
        os: System::long_os_version().ok(),
        architecture: System::cpu_arch(),
        processors: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        memory: system.ok().map(|s| Bytes(s.total_memory())),
    }
}

/// DMI and hypervisor as sysfs shows them; all `None` on machines without.
pub(super) fn identity(sys: &std::path::Path) -> MachineIdentity {
    let dmi = Attributes::new(sys.join("class/dmi/id"));
    MachineIdentity {
        vendor: dmi.text("sys_vendor"),
        product: dmi.text("product_name"),
        hypervisor: Attributes::new(sys.join("hypervisor")).text("type"),
    }
}

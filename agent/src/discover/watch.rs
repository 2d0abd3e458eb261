//! Noticing that disks come and go: the kernel's own uevents, and a slow rescan for those that are missed.
//!
//! Listens on the kernel's netlink group directly, so it works where no udev runs; messages from anybody but the kernel
//! are ignored. An event says only that a scan is worth it: the scan finds out what is true.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use bedplate_core::disk::DeviceNumber;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt, socket, sockopt,
};
use tokio::sync::mpsc;

/// The kernel's multicast group; udev's own is the second.
const KERNEL_GROUP: u32 = 1;
/// A message is one page at most (kernel `lib/kobject_uevent.c`, UEVENT_BUFFER_SIZE is 2048).
const LARGEST: usize = 8192;
/// Room for a burst, such as a shelf of disks that is switched on, in bytes.
const BACKLOG: usize = 1 << 20;

/// What happened to a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It appeared.
    Added,
    /// It is gone.
    Removed,
    /// It changed: resized, attached, detached, medium exchanged.
    Changed,
}

/// One piece of news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A whole disk or a partition.
    Block {
        /// What happened.
        action: Action,
        /// Kernel name.
        name: String,
        /// Device number.
        number: Option<DeviceNumber>,
        /// Whether it is a partition.
        partition: bool,
    },
    /// Look again: so much time has passed, or the kernel had more to tell than there was room for.
    Rescan,
}

/// Why the kernel cannot be listened to.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The socket could not be made.
    #[error("cannot {step} the kernel's event socket: disks that come and go will be noticed only by rescans")]
    Socket {
        /// `open`, `bind`, `read`, …
        step: &'static str,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
}

fn failed(step: &'static str) -> impl Fn(Errno) -> WatchError {
    move |errno| WatchError::Socket { step, source: errno.into() }
}

/// A subscription to block device events.
#[derive(Debug)]
pub struct Watch {
    socket: OwnedFd,
    rescan: Duration,
    due: Instant,
}

impl Watch {
    /// Subscribe; [`Event::Rescan`] comes at least every `rescan`.
    pub fn open(rescan: Duration) -> Result<Self, WatchError> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol).map_err(failed("open"))?;
        // A smaller buffer only means an earlier rescan.
        let _ = setsockopt(&socket, sockopt::RcvBuf, &BACKLOG);
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP)).map_err(failed("bind"))?;
        Ok(Self { socket, rescan, due: Instant::now() + rescan })
    }

    /// The next event, waiting at most `longest`; `None` if nothing happened until then.
    pub fn next_within(&mut self, longest: Duration) -> Result<Option<Event>, WatchError> {
        let until = Instant::now() + longest;
        loop {
            if let Some(event) = self.ready()?.or_else(|| self.rescan_if_due()) {
                return Ok(Some(event));
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            self.wait(self.due.min(until), None)?;
        }
    }

    /// The same subscription for asynchronous code: a thread waits on the socket and ends when the result is dropped.
    pub fn into_async(mut self) -> Result<AsyncWatch, WatchError> {
        let failed = |step| move |source| WatchError::Socket { step, source };
        let (stopped, stop) = std::io::pipe().map_err(failed("watch"))?;
        let (sender, events) = mpsc::channel(64);
        std::thread::Builder::new()
            .name("uevents".to_owned())
            .spawn(move || {
                loop {
                    let event = match self.ready().map(|event| event.or_else(|| self.rescan_if_due())) {
                        Ok(None) => match self.wait(self.due, Some(stopped.as_fd())) {
                            Ok(Stop::Yes) => return,
                            Ok(Stop::No) => continue,
                            Err(error) => Err(error),
                        },
                        Ok(Some(event)) => Ok(event),
                        Err(error) => Err(error),
                    };
                    let broken = event.is_err();
                    if sender.blocking_send(event).is_err() || broken {
                        return;
                    }
                }
            })
            .map_err(failed("watch"))?;
        Ok(AsyncWatch { events, _stop: stop })
    }

    /// Wait for the socket, for `until`, or for `stopped` to be hung up.
    fn wait(&self, until: Instant, stopped: Option<BorrowedFd<'_>>) -> Result<Stop, WatchError> {
        // Rounded up to whole milliseconds, so that the deadline has passed when the wait is over.
        let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut waiting = vec![PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        waiting.extend(stopped.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        match poll(&mut waiting, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(failed("wait on")(errno)),
        }
        let hung_up = waiting.get(1).and_then(PollFd::any).unwrap_or(false);
        Ok(if hung_up { Stop::Yes } else { Stop::No })
    }

    fn rescan_if_due(&mut self) -> Option<Event> {
        (Instant::now() >= self.due).then(|| {
            self.due = Instant::now() + self.rescan;
            Event::Rescan
        })
    }

    /// An event that is there already.
    fn ready(&mut self) -> Result<Option<Event>, WatchError> {
        let mut buffer = [0u8; LARGEST];
        loop {
            match recvfrom::<NetlinkAddr>(self.socket.as_raw_fd(), &mut buffer) {
                // Port 0 is the kernel; anybody may send to the group otherwise.
                Ok((length, Some(from))) if from.pid() == 0 => {
                    if let Some(event) = parse(&buffer[..length]) {
                        return Ok(Some(event));
                    }
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::ENOBUFS) => return Ok(Some(Event::Rescan)),
                Err(errno) => return Err(failed("read")(errno)),
            }
        }
    }
}

/// Whether a wait ended because nobody listens any more.
enum Stop {
    Yes,
    No,
}

/// A subscription for asynchronous code.
#[derive(Debug)]
pub struct AsyncWatch {
    events: mpsc::Receiver<Result<Event, WatchError>>,
    /// Closed on drop, which ends the thread.
    _stop: std::io::PipeWriter,
}

impl AsyncWatch {
    /// The next event; `None` after an error, which is the last thing told. Safe to cancel.
    pub async fn next(&mut self) -> Option<Result<Event, WatchError>> {
        self.events.recv().await
    }

    /// Let go of news that are there already: whoever looks now sees what they tell of.
    pub fn drain(&mut self) {
        while let Ok(Ok(_)) = self.events.try_recv() {}
    }
}

/// A kernel message: `action@path`, then `KEY=value` pairs, each closed by a zero. `None` where it is not about a block
/// device or not understood.
fn parse(message: &[u8]) -> Option<Event> {
    let value = |key: &str| {
        message
            .split(|b| *b == 0)
            .find_map(|field| std::str::from_utf8(field).ok()?.strip_prefix(key)?.strip_prefix('='))
    };
    if value("SUBSYSTEM")? != "block" {
        return None;
    }
    let action = match value("ACTION")? {
        "add" => Action::Added,
        "remove" => Action::Removed,
        _ => Action::Changed,
    };
    let name = value("DEVNAME").or_else(|| value("DEVPATH")?.rsplit('/').next())?;
    let number = || Some(DeviceNumber { major: value("MAJOR")?.parse().ok()?, minor: value("MINOR")?.parse().ok()? });
    Some(Event::Block {
        action,
        name: name.trim_start_matches("/dev/").to_owned(),
        number: number(),
        partition: value("DEVTYPE") == Some("partition"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_message_about_a_disk_is_read_and_others_are_not() {
        let text = b"add@/devices/virtual/block/loop7\0ACTION=add\0DEVPATH=/devices/virtual/block/loop7\0SUBSYSTEM=block\0MAJOR=7\0MINOR=7\0DEVNAME=loop7\0DEVTYPE=disk\0SEQNUM=1\0";
        let event = Event::Block {
            action: Action::Added,
            name: "loop7".to_owned(),
            number: Some(DeviceNumber { major: 7, minor: 7 }),
            partition: false,
        };
        assert_eq!(parse(text), Some(event));
        for other in [&b"add@/x\0ACTION=add\0SUBSYSTEM=net\0"[..], b"", b"\0\0", b"libudev\0\xfe\xed", b"\xff\xff=\0"] {
            assert_eq!(parse(other), None);
        }
    }

    #[test]
    fn without_events_a_rescan_comes_when_it_is_due_and_not_before() {
        let Ok(mut watch) = Watch::open(Duration::from_millis(80)) else {
            println!("SKIP without_events_a_rescan_comes_when_it_is_due_and_not_before: no netlink socket here");
            return;
        };
        let start = Instant::now();
        let rescan = std::iter::from_fn(|| watch.next_within(Duration::from_secs(5)).unwrap())
            .find(|event| *event == Event::Rescan);
        assert!(rescan.is_some());
        assert!(start.elapsed() >= Duration::from_millis(80));
    }

    #[tokio::test]
    async fn the_async_subscription_rescans_too() {
        let Ok(watch) = Watch::open(Duration::from_millis(50)) else {
            println!("SKIP the_async_subscription_rescans_too: no netlink socket here");
            return;
        };
        let mut watch = watch.into_async().unwrap();
        while watch.next().await.unwrap().unwrap() != Event::Rescan {}
    }
}

//! What the report says of each measure: its words are here and nowhere else.

use crate::measure::{at_once, calls, ctr_run, memory, pods, programs, sizes};

/// A section of the report.
#[derive(Clone, Debug)]
pub struct Section {
    pub title: &'static str,
    /// The chart's file, without `.svg`.
    pub chart: &'static str,
    /// How it was measured.
    pub method: &'static str,
    /// Measures by name, each with its label.
    pub measures: Vec<(String, String)>,
    /// Those of them that the chart shows; of one unit.
    pub charted: Vec<String>,
}

const COUNTS: [usize; 4] = [1, 10, 50, 100];
const IDLE: [usize; 4] = [1, 5, 20, 100];
const SIZES: [&str; 3] = ["50kb", "2mb", "20mb"];

/// The sections in their order.
pub fn sections() -> Vec<Section> {
    vec![
        Section {
            title: "`ctr run --rm`",
            chart: "ctr-run",
            method: "A hello from the start of `ctr` to its end, as a user sees it: most of \
                the time is `ctr`'s and containerd's, and the same for all.",
            measures: vec![named(ctr_run::NAME, "`ctr run --rm`")],
            charted: vec![ctr_run::NAME.to_owned()],
        },
        Section {
            title: "The task API, call by call",
            chart: "task",
            method: "Create, Start, Wait and Delete through containerd's gRPC API, one container \
                after the other; its record and snapshot are made before and removed after. Wait \
                is asked before Start and counts from Start's answer. The program prints the \
                time and ends; its output goes to a FIFO.",
            measures: vec![
                named(calls::SUM, "sum"),
                named(calls::CREATE, "Create"),
                named(calls::START, "Start"),
                named(calls::WAIT, "Wait"),
                named(calls::DELETE, "Delete"),
            ],
            charted: vec![calls::SUM.to_owned()],
        },
        Section {
            title: "From Start to the first instruction",
            chart: "first-instruction",
            method: "From the call of Start to the time that the program reads as the first thing \
                it does. Both are the kernel's real-time clock in nanoseconds: a guest's monotonic \
                clock counts from the guest's own beginning and cannot be compared. Native \
                contestants run the same program as a static binary. The way through containerd \
                to the shim is included; what that takes both ways with nothing to do is the \
                second row, a call that asks for the state.",
            measures: vec![
                named(calls::FIRST_INSTRUCTION, "Start to the first instruction"),
                named(calls::EMPTY_CALL, "an empty call and its answer"),
            ],
            charted: vec![calls::FIRST_INSTRUCTION.to_owned()],
        },
        Section {
            title: "Many at once",
            chart: "at-once",
            method: "N tasks from Create to Delete, all begun at once through the API by one \
                client; their records and snapshots are there before. How many are done per \
                second.",
            measures: COUNTS
                .map(|count| (at_once::name(count), format!("{count} at once")))
                .to_vec(),
            charted: COUNTS.map(at_once::name).to_vec(),
        },
        Section {
            title: "Many `ctr run` at once",
            chart: "ctr-at-once",
            method: "N processes of `ctr run --rm` begun at once. They compete for the same \
                cores: on a small machine this measures `ctr` as much as the runtime.",
            measures: COUNTS
                .map(|count| (at_once::ctr_name(count), format!("{count} `ctr` at once")))
                .to_vec(),
            charted: COUNTS.map(at_once::ctr_name).to_vec(),
        },
        Section {
            title: "Idle containers",
            chart: "idle",
            method: "N containers that sleep, weighed from `/proc/PID/smaps_rollup` two seconds \
                after the last has started, per container. PSS is of all their processes, shim \
                and container together, and divides shared pages among those who share them; \
                private memory is what would be free if the process ended. The native \
                contestants run busybox `sleep`, the others a Rust program that sleeps.",
            measures: IDLE
                .iter()
                .flat_map(|count| {
                    [
                        (memory::pss(*count), format!("{count} idle: PSS")),
                        (
                            memory::shim_private(*count),
                            format!("{count} idle: shim, private"),
                        ),
                        (
                            memory::container_private(*count),
                            format!("{count} idle: container, private"),
                        ),
                    ]
                })
                .collect(),
            charted: IDLE.map(memory::pss).to_vec(),
        },
        Section {
            title: "Pods",
            chart: "pods",
            method: "Through the CRI, as kubelet does it, on the host's network: a pod with one \
                idle container from RunPodSandbox to the answer to StartContainer, then \
                StopPodSandbox and RemovePodSandbox while it runs. Its first container, pause, \
                is a static native binary that sleeps.",
            measures: vec![named(pods::START, "start"), named(pods::STOP, "stop")],
            charted: vec![pods::START.to_owned(), pods::STOP.to_owned()],
        },
        Section {
            title: "Idle pods",
            chart: "idle-pods",
            method: "N such pods, weighed like idle containers: shim, pause and container, per pod.",
            measures: IDLE
                .iter()
                .flat_map(|count| {
                    [
                        (pods::pss(*count), format!("{count} idle: PSS")),
                        (pods::private(*count), format!("{count} idle: private")),
                    ]
                })
                .collect(),
            charted: IDLE.map(pods::pss).to_vec(),
        },
        Section {
            title: "First and later starts of a program",
            chart: "programs",
            method: "The sum of the four calls for a generated core module of 50 KB, 2 MB and \
                20 MB that no runtime has seen before, then for the same image again. A first \
                start includes the compilation.",
            measures: SIZES
                .iter()
                .flat_map(|size| {
                    [
                        (programs::first(size), format!("{size}: first start")),
                        (programs::later(size), format!("{size}: later starts")),
                    ]
                })
                .collect(),
            charted: SIZES.map(programs::later).to_vec(),
        },
        Section {
            title: "Sizes",
            chart: "sizes",
            method: "The archive of the hello image (busybox alone for the native contestants), \
                and the files that a node needs of the runtime: wisp's shim and `wisp`, which has \
                the compiler; runc or crun with containerd's shim.",
            measures: vec![
                named(sizes::IMAGE, "image"),
                named(sizes::BINARIES, "binaries"),
            ],
            charted: vec![sizes::IMAGE.to_owned(), sizes::BINARIES.to_owned()],
        },
    ]
}

fn named(name: &str, label: &str) -> (String, String) {
    (name.to_owned(), label.to_owned())
}

//! One program that uses everything a command can be given: files, environment,
//! arguments, stdin, clocks, randomness, sockets, memory, and each way to end.
//!
//! `tour <subcommand> [argument…]`; without arguments it prints what there is.

mod ending;
mod files;
mod net;
mod process;
mod stdio;

use std::process::ExitCode;

/// What a subcommand ends with: nothing on success, else the sentence to print.
type Outcome = Result<(), String>;

struct Subcommand {
    name: &'static str,
    arguments: &'static str,
    run: fn(&[String]) -> Outcome,
}

const SUBCOMMANDS: &[Subcommand] = &[
    Subcommand {
        name: "args",
        arguments: "[argument…]",
        run: process::args,
    },
    Subcommand {
        name: "env",
        arguments: "[name]",
        run: process::env,
    },
    Subcommand {
        name: "cwd",
        arguments: "",
        run: process::cwd,
    },
    Subcommand {
        name: "clocks",
        arguments: "",
        run: process::clocks,
    },
    Subcommand {
        name: "random",
        arguments: "bytes",
        run: process::random,
    },
    Subcommand {
        name: "hog",
        arguments: "mebibytes",
        run: process::hog,
    },
    Subcommand {
        name: "grow",
        arguments: "",
        run: process::grow,
    },
    Subcommand {
        name: "read",
        arguments: "path",
        run: files::read,
    },
    Subcommand {
        name: "watch",
        arguments: "path text",
        run: files::watch,
    },
    Subcommand {
        name: "write",
        arguments: "path text",
        run: files::write,
    },
    Subcommand {
        name: "keep",
        arguments: "path text",
        run: files::keep,
    },
    Subcommand {
        name: "append",
        arguments: "path text",
        run: files::append,
    },
    Subcommand {
        name: "list",
        arguments: "path",
        run: files::list,
    },
    Subcommand {
        name: "tree",
        arguments: "path",
        run: files::tree,
    },
    Subcommand {
        name: "link",
        arguments: "path",
        run: files::link,
    },
    Subcommand {
        name: "mkdir",
        arguments: "path",
        run: files::mkdir,
    },
    Subcommand {
        name: "remove",
        arguments: "path",
        run: files::remove,
    },
    Subcommand {
        name: "cat",
        arguments: "",
        run: stdio::cat,
    },
    Subcommand {
        name: "count",
        arguments: "",
        run: stdio::count,
    },
    Subcommand {
        name: "flood",
        arguments: "size[k|m]",
        run: stdio::flood,
    },
    Subcommand {
        name: "both",
        arguments: "",
        run: stdio::both,
    },
    Subcommand {
        name: "terminal",
        arguments: "",
        run: stdio::terminal,
    },
    Subcommand {
        name: "tcp-connect",
        arguments: "host:port",
        run: net::tcp_connect,
    },
    Subcommand {
        name: "tcp-listen",
        arguments: "address:port",
        run: net::tcp_listen,
    },
    Subcommand {
        name: "udp-send",
        arguments: "host:port text",
        run: net::udp_send,
    },
    Subcommand {
        name: "resolve",
        arguments: "host",
        run: net::resolve,
    },
    Subcommand {
        name: "exit",
        arguments: "code",
        run: ending::exit,
    },
    Subcommand {
        name: "trap",
        arguments: "[unreachable|panic|stack|memory]",
        run: ending::trap,
    },
    Subcommand {
        name: "spin",
        arguments: "",
        run: ending::spin,
    },
    Subcommand {
        name: "sleep",
        arguments: "milliseconds",
        run: ending::sleep,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = arguments.split_first() else {
        for Subcommand {
            name, arguments, ..
        } in SUBCOMMANDS
        {
            println!("tour {name} {arguments}");
        }
        return ExitCode::SUCCESS;
    };
    let Some(subcommand) = SUBCOMMANDS.iter().find(|s| s.name == name) else {
        eprintln!("tour: no subcommand {name:?}");
        return ExitCode::FAILURE;
    };
    match (subcommand.run)(rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("tour {name}: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// The argument at `index`, or an error that says what is missing.
fn argument<'a>(arguments: &'a [String], index: usize, what: &str) -> Result<&'a str, String> {
    arguments
        .get(index)
        .map(String::as_str)
        .ok_or_else(|| format!("give {what}"))
}

/// The argument at `index` as a number.
fn number<N: std::str::FromStr>(
    arguments: &[String],
    index: usize,
    what: &str,
) -> Result<N, String> {
    let text = argument(arguments, index, what)?;
    text.parse().map_err(|_| format!("{text:?} is not {what}"))
}

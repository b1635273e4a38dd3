//! A command for `wasi:cli/run` 0.3: async from the first line.

use futures::join;
use wasip3::cli::types::ErrorCode;
use wasip3::cli::{environment, exit, stderr, stdin, stdout};
use wasip3::clocks::monotonic_clock;
use wasip3::wit_bindgen::{FutureReader, StreamReader, StreamResult};
use wasip3::wit_stream;

wasip3::cli::command::export!(Command);

struct Command;

impl wasip3::exports::cli::run::Guest for Command {
    async fn run() -> Result<(), ()> {
        let arguments = environment::get_arguments();
        let words: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
        match words.as_slice() {
            [] => print("hello from wasi:cli 0.3\n").await,
            ["args", rest @ ..] => print(&lines(rest.iter().copied())).await,
            ["env"] => {
                let mut variables: Vec<_> = environment::get_environment()
                    .into_iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                variables.sort();
                print(&lines(variables.iter().map(String::as_str))).await
            }
            ["cat"] => cat().await,
            ["sleep", milliseconds] => {
                let milliseconds: u64 = milliseconds.parse().map_err(|_| ())?;
                print("sleeping\n").await?;
                monotonic_clock::wait_for(milliseconds * 1_000_000).await;
                print("awake\n").await
            }
            ["exit", code] => {
                exit::exit_with_code(code.parse().map_err(|_| ())?);
                Ok(())
            }
            ["fail"] => Err(()),
            ["trap"] => trap_here(),
            _ => {
                complain("command-03 [args …|env|cat|sleep MS|exit CODE|fail|trap]\n").await?;
                Err(())
            }
        }
    }
}

#[inline(never)]
fn trap_here() -> ! {
    core::arch::wasm32::unreachable()
}

fn lines<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.map(|word| format!("{word}\n")).collect()
}

/// One of the two output streams: takes what to write, resolves when it is.
type Output = fn(StreamReader<u8>) -> FutureReader<Result<(), ErrorCode>>;

async fn print(text: &str) -> Result<(), ()> {
    write(stdout::write_via_stream, text).await
}

async fn complain(text: &str) -> Result<(), ()> {
    write(stderr::write_via_stream, text).await
}

async fn write(output: Output, text: &str) -> Result<(), ()> {
    let (mut writer, reader) = wit_stream::new();
    let (written, ()) = join!(output(reader).into_future(), async {
        writer.write_all(text.as_bytes().to_vec()).await;
        drop(writer);
    });
    written.map_err(drop)
}

/// Copies stdin to stdout through the guest, a buffer at a time.
async fn cat() -> Result<(), ()> {
    let (mut input, input_end) = stdin::read_via_stream();
    let (mut writer, reader) = wit_stream::new();
    let copy = async {
        let mut buffer = Vec::with_capacity(64 * 1024);
        loop {
            let (result, read) = input.read(buffer).await;
            buffer = read;
            if !buffer.is_empty() {
                let unwritten = writer.write_all(std::mem::take(&mut buffer)).await;
                if !unwritten.is_empty() {
                    break;
                }
                buffer = Vec::with_capacity(64 * 1024);
            }
            if matches!(result, StreamResult::Dropped) {
                break;
            }
        }
        drop(writer);
        drop(input);
    };
    let (written, read, ()) = join!(
        stdout::write_via_stream(reader).into_future(),
        input_end.into_future(),
        copy
    );
    written.and(read).map_err(drop)
}

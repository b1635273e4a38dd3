//! Terminals: `ctr run -t`, attach, window sizes.

use super::Case;
use anyhow::{Context, Result, ensure};
use std::io::Write;
use wisp_tests::api::Streams;
use wisp_tests::fifo::{self, Reader};
use wisp_tests::wait::PATIENCE;
use wisp_tests::{Run, Test, terminal};

pub fn cases() -> Vec<Case> {
    super::cases(
        "terminals",
        &[
            ("a guest sees a terminal", guest_sees),
            ("a guest without a terminal sees none", guest_sees_none),
            ("a native program has a terminal of its own", native_has),
            (
                "what is typed reaches a guest, and its echo comes back",
                typed,
            ),
            ("Ctrl-C ends a guest", interrupted),
            ("Ctrl-C reaches a native program", native_interrupted),
            ("a window's size reaches the program", resized),
            ("a client that leaves and comes back goes on", reattached),
            ("a terminal's last words are not lost", last_words),
            ("ctr run -t runs a shell", by_ctr),
        ],
    )
}

/// A task with a terminal.
struct Session<'t, 'n> {
    test: &'t Test<'n>,
    id: String,
    keys: std::fs::File,
    screen: Reader,
}

impl<'t, 'n> Session<'t, 'n> {
    fn start(test: &'t Test<'n>, run: Run<'t, 'n>) -> Result<Self> {
        let id = run.flags(&["--tty"]).create()?;
        let stdin = test.dir().join(format!("{id}-stdin"));
        let keys = fifo::writer(&stdin)?;
        let screen = Reader::new(&test.dir().join(format!("{id}-stdout")))?;
        let streams = Streams {
            stdin: stdin.display().to_string(),
            stdout: screen.path(),
            terminal: true,
            ..Streams::default()
        };
        test.api()?.create(&id, &streams)?;
        // As `ctr` and kubelet do, before and after Start.
        test.api()?.process(&id, "").resize(100, 30)?;
        test.api()?.start(&id)?;
        Ok(Self {
            test,
            id,
            keys,
            screen,
        })
    }

    fn type_in(&mut self, text: &str) -> Result<()> {
        Ok(self.keys.write_all(text.as_bytes())?)
    }

    fn until(&self, text: &str) -> Result<()> {
        self.screen.until(text, PATIENCE)
    }

    /// Its exit code and all that was on the screen.
    fn finish(self) -> Result<(u32, String)> {
        let api = self.test.api()?;
        let code = api.wait(&self.id)?;
        let screen = self.screen.to_end(PATIENCE)?;
        api.delete(&self.id)?;
        self.test.ctr_ok(&["container", "rm", &self.id])?;
        Ok((code, String::from_utf8_lossy(&screen).into_owned()))
    }
}

fn guest_sees(test: &Test<'_>) -> Result<()> {
    for guest in ["tour", "tour-module"] {
        let image = test.image(guest)?;
        let run = test.run(&image).args(&["terminal"]);
        let (code, screen) = Session::start(test, run)?.finish()?;
        ensure!(code == 0, "{guest}: {code}: {screen}");
        let expected = "stdin yes\r\nstdout yes\r\nstderr yes\r\n";
        ensure!(screen == expected, "{guest}: {screen:?}");
    }
    Ok(())
}

fn guest_sees_none(test: &Test<'_>) -> Result<()> {
    for guest in ["tour", "tour-module"] {
        let image = test.image(guest)?;
        let ended = test.run(&image).args(&["terminal"]).ctr()?;
        let expected = "stdin no\nstdout no\nstderr no\n";
        ensure!(ended.out() == expected, "{guest}: {ended:?}");
    }
    Ok(())
}

fn native_has(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let script = "tty; test -t 0 && test -t 1 && test -t 2 && echo all; echo x > /dev/tty; \
                  test -c /dev/console && echo console";
    let run = test.run(&image).args(&["sh", "-c", script]);
    let (code, screen) = Session::start(test, run)?.finish()?;
    ensure!(code == 0, "{code}: {screen}");
    ensure!(
        screen == "/dev/pts/0\r\nall\r\nx\r\nconsole\r\n",
        "{screen:?}"
    );
    Ok(())
}

fn typed(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let mut session = Session::start(test, test.run(&image).args(&["cat"]))?;
    session.type_in("hello\n")?;
    session.until("hello\r\nhello\r\n")?;
    // Ctrl-D is the end of a terminal's input.
    session.type_in("\u{4}")?;
    let (code, screen) = session.finish()?;
    ensure!(
        code == 0 && screen == "hello\r\nhello\r\n",
        "{code}: {screen:?}"
    );
    Ok(())
}

fn interrupted(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let mut session = Session::start(test, test.run(&image).args(&["sleep", "1000000"]))?;
    session.until("sleeping")?;
    session.type_in("\u{3}")?;
    let (code, screen) = session.finish()?;
    ensure!(code == 130, "{code}: {screen:?}");
    Ok(())
}

fn native_interrupted(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let script = "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.05; done";
    let mut session = Session::start(test, test.run(&image).args(&["sh", "-c", script]))?;
    session.until("ready")?;
    session.type_in("\u{3}")?;
    let (code, screen) = session.finish()?;
    ensure!(code == 3 && screen.contains("caught"), "{code}: {screen:?}");
    Ok(())
}

fn resized(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let script = "stty size; read line; stty size";
    let mut session = Session::start(test, test.run(&image).args(&["sh", "-c", script]))?;
    session.until("30 100\r\n")?;
    test.api()?.process(&session.id, "").resize(132, 43)?;
    session.type_in("\n")?;
    let (code, screen) = session.finish()?;
    ensure!(code == 0 && screen.contains("43 132"), "{code}: {screen:?}");
    Ok(())
}

fn reattached(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let mut session = Session::start(test, test.run(&image).args(&["cat"]))?;
    session.type_in("first\n")?;
    session.until("first\r\nfirst\r\n")?;
    let stdin = test.dir().join(format!("{}-stdin", session.id));
    session.keys = std::fs::OpenOptions::new().read(true).open("/dev/null")?;
    session.keys = std::fs::OpenOptions::new().write(true).open(stdin)?;
    session.type_in("second\n\u{4}")?;
    let (code, screen) = session.finish()?;
    ensure!(code == 0, "{code}");
    ensure!(screen.ends_with("second\r\nsecond\r\n"), "{screen:?}");
    Ok(())
}

fn last_words(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let size = 200_000;
    let run = test.run(&image).args(&["flood", &size.to_string()]);
    let (code, screen) = Session::start(test, run)?.finish()?;
    ensure!(code == 0, "{code}");
    // Each line got a carriage return.
    let plain = screen.replace("\r\n", "\n");
    ensure!(plain.len() == size, "{} of {size} bytes", plain.len());
    Ok(())
}

fn by_ctr(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let run = test.run(&image).flags(&["--tty"]);
    let ctr = run.args(&["sh", "-c", "tty; stty size; exit 6"]).command();
    let text = terminal::run(ctr, PATIENCE * 2).context("ctr run -t")?;
    ensure!(text.1.contains("/dev/pts/0"), "{text:?}");
    ensure!(text.0 == 6, "{text:?}");
    let image = test.image("tour")?;
    let run = test.run(&image).flags(&["--tty"]);
    let text = terminal::run(run.args(&["terminal"]).command(), PATIENCE * 2)?;
    ensure!(text.0 == 0 && text.1.contains("stdout yes"), "{text:?}");
    Ok(())
}

//! Prints the values of `wasi:config`: all of them, sorted, or those that are asked
//! for by name.

use std::process::ExitCode;
use wasi::config::store;

wit_bindgen::generate!({ path: "wit", world: "reader" });

fn main() -> ExitCode {
    let names: Vec<String> = std::env::args().skip(1).collect();
    match told(&names) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("config: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn told(names: &[String]) -> Result<String, store::Error> {
    if names.is_empty() {
        let mut all = store::get_all()?;
        all.sort();
        return Ok(all
            .into_iter()
            .map(|(name, value)| format!("{name}={value}\n"))
            .collect());
    }
    let mut text = String::new();
    for name in names {
        match store::get(name)? {
            Some(value) => text += &format!("{name}={value}\n"),
            None => text += &format!("{name} is not set\n"),
        }
    }
    Ok(text)
}

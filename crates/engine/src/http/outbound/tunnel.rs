//! A way through a proxy, which CONNECT asks for (RFC 9110, section 9.3.6).

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wasmtime_wasi_http::Error;

use super::errors;
use super::proxy::Proxy;
use super::target::Target;
use super::tls::Transport;

/// The most a proxy may say, in bytes.
const ANSWER: usize = 16 << 10;

/// Asks the proxy at the other end of `stream` for a connection to `target`.
pub async fn open<T: Transport>(
    stream: &mut T,
    proxy: &Proxy,
    target: &Target,
) -> Result<(), Error> {
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
    if let Some(authorization) = &proxy.authorization {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(authorization.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    let broken = |_| Error::ConnectionTerminated;
    stream.write_all(&request).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let mut answer = Vec::new();
    loop {
        if stream.read_buf(&mut answer).await.map_err(broken)? == 0 {
            return Err(Error::ConnectionTerminated);
        }
        if let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
            // Who is to be spoken to first has nothing to say yet.
            return match end + 4 == answer.len() {
                true => judge(&answer),
                false => Err(Error::HttpProtocolError),
            };
        }
        if answer.len() > ANSWER {
            return Err(Error::HttpResponseHeaderSectionSize(None));
        }
    }
}

fn judge(answer: &[u8]) -> Result<(), Error> {
    let line = answer.split(|byte| *byte == b'\r').next();
    let mut words = line.unwrap_or_default().split(|byte| *byte == b' ');
    let version = words.next().unwrap_or_default();
    let status = words
        .next()
        .and_then(|code| std::str::from_utf8(code).ok())
        .and_then(|code| code.parse::<u16>().ok());
    match status {
        Some(200..300) if version.starts_with(b"HTTP/1.") => Ok(()),
        Some(status) if version.starts_with(b"HTTP/1.") => Err(errors::of_settings(format!(
            "the proxy refuses a connection to the server: status {status}"
        ))),
        _ => Err(Error::HttpProtocolError),
    }
}

#[cfg(test)]
mod tests {
    use wisp_capability::Scheme;

    use super::*;

    fn target() -> Target {
        Target {
            scheme: Scheme::Https,
            host: "fd00::1".into(),
            port: 443,
        }
    }

    async fn asks(answer: &[u8]) -> (Result<(), Error>, String) {
        let (mut near, mut far) = tokio::io::duplex(64 << 10);
        far.write_all(answer).await.expect("answer");
        let proxy = Proxy {
            target: target(),
            authorization: Some(http::HeaderValue::from_static("Basic eDp5")),
        };
        let opened = async {
            let opened = open(&mut near, &proxy, &target()).await;
            drop(near);
            opened
        };
        let mut asked = String::new();
        let listened = async {
            far.shutdown().await.expect("shutdown");
            far.read_to_string(&mut asked).await.expect("request");
        };
        let (opened, ()) = tokio::join!(opened, listened);
        (opened, asked)
    }

    #[tokio::test]
    async fn a_proxy_is_asked_for_the_target_and_told_who_asks() {
        let (opened, asked) = asks(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n").await;
        opened.expect("opened");
        assert_eq!(
            asked,
            "CONNECT [fd00::1]:443 HTTP/1.1\r\nHost: [fd00::1]:443\r\n\
             Proxy-Authorization: Basic eDp5\r\n\r\n"
        );
    }

    #[tokio::test]
    async fn a_proxy_that_does_not_agree_is_an_error() {
        let refused = asks(b"HTTP/1.1 407 Who are you\r\n\r\n").await.0;
        let error = refused.expect_err("refused").to_string();
        assert!(error.contains("407"), "{error}");
        let long = vec![b'x'; ANSWER + 1];
        for answer in [
            &b"HTTP/1.1 200 OK\r\n\r\nand more"[..],
            b"HTTP/2 200\r\n\r\n",
            b"SSH-2.0\r\n\r\n",
            b"HTTP/1.1 200",
            b"",
            &long,
        ] {
            assert!(asks(answer).await.0.is_err());
        }
    }
}

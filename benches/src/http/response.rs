//! Responses of HTTP/1.1, read as they come.

use anyhow::{Context, Result, bail, ensure};

/// Headers in a response; the servers here send four at most.
const HEADERS: usize = 32;

/// Reads one response after the other. It keeps no bytes: what it cannot use
/// yet is given to it again, with more.
#[derive(Clone, Copy, Debug)]
pub struct Reader {
    expects: Expects,
    /// Bytes of the body so far, without what frames them.
    body: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expects {
    Head,
    /// Bytes of a body of known length.
    Body(u64),
    ChunkSize,
    /// Bytes of a chunk and its line end.
    Chunk(u64),
    Trailers,
}

/// What came of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// How many of them are done with.
    pub used: usize,
    /// The length of the body, if the response has ended.
    pub ended: Option<u64>,
}

impl Reader {
    pub fn new() -> Self {
        Self {
            expects: Expects::Head,
            body: 0,
        }
    }

    /// Reads what it can of `bytes`, up to the end of a response.
    ///
    /// # Errors
    /// What is no response, another status than 200, and a body that only the
    /// end of the connection ends.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Read> {
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            match self.expects {
                Expects::Head => match head(rest)? {
                    Some((length, framed)) => {
                        used += length;
                        self.body = 0;
                        self.expects = framed;
                    }
                    None => return Ok(Read { used, ended: None }),
                },
                Expects::Body(0) => return Ok(self.end(used)),
                Expects::Body(left) => {
                    let here = left.min(rest.len() as u64);
                    used += here as usize;
                    self.body += here;
                    self.expects = Expects::Body(left - here);
                    if here < left {
                        return Ok(Read { used, ended: None });
                    }
                }
                Expects::ChunkSize => {
                    let size = httparse::parse_chunk_size(rest)
                        .map_err(|error| anyhow::anyhow!("a chunk: {error}"))?;
                    let httparse::Status::Complete((length, size)) = size else {
                        return Ok(Read { used, ended: None });
                    };
                    used += length;
                    self.body += size;
                    self.expects = match size {
                        0 => Expects::Trailers,
                        size => Expects::Chunk(size + 2),
                    };
                }
                Expects::Chunk(0) => self.expects = Expects::ChunkSize,
                Expects::Chunk(left) => {
                    let here = left.min(rest.len() as u64);
                    used += here as usize;
                    self.expects = Expects::Chunk(left - here);
                    if here < left {
                        return Ok(Read { used, ended: None });
                    }
                }
                Expects::Trailers => {
                    let Some(line) = rest.windows(2).position(|two| two == b"\r\n") else {
                        return Ok(Read { used, ended: None });
                    };
                    used += line + 2;
                    if line == 0 {
                        return Ok(self.end(used));
                    }
                }
            }
        }
    }

    fn end(&mut self, used: usize) -> Read {
        self.expects = Expects::Head;
        Read {
            used,
            ended: Some(self.body),
        }
    }
}

/// The length of a head and what follows it, if it is whole.
fn head(bytes: &[u8]) -> Result<Option<(usize, Expects)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = response.parse(bytes).context("a head")? else {
        return Ok(None);
    };
    let status = response.code.unwrap_or_default();
    ensure!(status == 200, "status {status}");
    for header in response.headers {
        if header.name.eq_ignore_ascii_case("content-length") {
            let length_of_body = std::str::from_utf8(header.value)?.parse()?;
            return Ok(Some((length, Expects::Body(length_of_body))));
        }
        if header.name.eq_ignore_ascii_case("transfer-encoding")
            && header.value.eq_ignore_ascii_case(b"chunked")
        {
            return Ok(Some((length, Expects::ChunkSize)));
        }
    }
    bail!("a body that only the end of the connection ends");
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITH_LENGTH: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello\n";
    const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
        2\r\nhe\r\n4;x=y\r\nllo\n\r\n0\r\na: b\r\n\r\n";

    #[test]
    fn bodies_end_by_their_length_or_their_last_chunk() {
        for response in [WITH_LENGTH, CHUNKED] {
            let read = Reader::new().read(response).expect("a response");
            let all = Read {
                used: response.len(),
                ended: Some(6),
            };
            assert_eq!(read, all);
        }
    }

    #[test]
    fn it_does_not_matter_where_reads_are_split() {
        for response in [WITH_LENGTH, CHUNKED] {
            let mut reader = Reader::new();
            let (mut from, mut ended) = (0, None);
            for to in 1..=response.len() {
                let read = reader.read(&response[from..to]).expect("a response");
                from += read.used;
                ended = ended.or(read.ended);
                assert_eq!(ended.is_some(), to == response.len(), "{to}");
            }
            assert_eq!((from, ended), (response.len(), Some(6)));
        }
    }

    #[test]
    fn one_response_is_read_at_a_time() {
        let two = [WITH_LENGTH, CHUNKED].concat();
        let mut reader = Reader::new();
        let first = reader.read(&two).expect("a response");
        assert_eq!(first.used, WITH_LENGTH.len());
        let second = reader.read(&two[first.used..]).expect("a response");
        assert_eq!((second.used, second.ended), (CHUNKED.len(), Some(6)));
    }

    #[test]
    fn failures_are_told() {
        for response in [
            &b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n",
            b"SSH-2.0-x\r\n",
        ] {
            assert!(Reader::new().read(response).is_err(), "{response:?}");
        }
    }
}

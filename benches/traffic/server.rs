//! Who is connected to. The first byte of a connection says what is wanted.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// The port that the connection came from, and the end of it.
pub const PORT: u8 = b'p';
/// Every byte back.
pub const ECHO: u8 = b'e';
/// [`BULK_BYTES`] bytes, and the end.
pub const BULK: u8 = b'b';

/// 128 MiB.
pub const BULK_BYTES: usize = 128 * 1024 * 1024;

/// Bytes at once.
pub const CHUNK: usize = 64 * 1024;

/// Serves one connection after the other, until the benchmark ends.
pub fn start(addr: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(addr)?;
    std::thread::Builder::new().name("server".into()).spawn(move || {
        for stream in listener.incoming() {
            // The client notices, and says so.
            let _ = stream.and_then(serve);
        }
    })?;
    Ok(())
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut wanted = [0];
    stream.read_exact(&mut wanted)?;
    match wanted[0] {
        PORT => stream.write_all(&stream.peer_addr()?.port().to_be_bytes()),
        ECHO => loop {
            let mut byte = [0];
            if stream.read(&mut byte)? == 0 {
                return Ok(());
            }
            stream.write_all(&byte)?;
        },
        BULK => {
            let chunk = vec![0; CHUNK];
            (0..BULK_BYTES / CHUNK).try_for_each(|_| stream.write_all(&chunk))
        }
        _ => Ok(()),
    }
}

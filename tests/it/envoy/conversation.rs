//! Connections that stay: the protocol is changed once, as a WebSocket does it, and then both sides go on talking.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::server::UPGRADED;
use super::sidecar::wait_for;

const REQUEST: &str = "GET /talk HTTP/1.1\r\nHost: talk\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// Nothing here takes longer unless it never comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Between two rounds of talk, so that talking does not take the whole machine.
const BREATH: Duration = Duration::from_millis(2);

/// One connection.
pub struct Conversation {
    stream: TcpStream,
    said: usize,
}

impl Conversation {
    /// Connects in the namespace of the caller, as its user.
    pub fn open(to: SocketAddr) -> io::Result<Self> {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(REQUEST.as_bytes())?;
        let mut answer = [0; UPGRADED.len()];
        stream.read_exact(&mut answer)?;
        if answer != UPGRADED.as_bytes() {
            return Err(io::Error::other(String::from_utf8_lossy(&answer).into_owned()));
        }
        Ok(Self { stream, said: 0 })
    }

    /// Many of them, all open at the same time.
    pub fn open_many(to: SocketAddr, count: usize) -> io::Result<Vec<Self>> {
        (0..count).map(|_| Self::open(to)).collect()
    }

    /// Says something that was not said before.
    pub fn say(&mut self) -> io::Result<()> {
        self.said += 1;
        self.stream.write_all(self.words()?.as_bytes())
    }

    /// Hears what was said last, and that nothing else comes.
    pub fn hear(&mut self) -> io::Result<()> {
        let wanted = self.words()?;
        let mut heard = vec![0; wanted.len()];
        self.stream.read_exact(&mut heard)?;
        if heard != wanted.as_bytes() {
            return Err(io::Error::other(format!("{:?} for {wanted:?}", String::from_utf8_lossy(&heard))));
        }
        Ok(())
    }

    /// Differs from conversation to conversation by the port, so that no two can be mixed up.
    fn words(&self) -> io::Result<String> {
        Ok(format!("{} says this as number {}\n", self.stream.local_addr()?, self.said))
    }
}

/// Everybody says something, and only then everybody listens.
pub fn all_talk(conversations: &mut [Conversation]) -> io::Result<()> {
    conversations.iter_mut().try_for_each(Conversation::say)?;
    conversations.iter_mut().try_for_each(Conversation::hear)
}

/// Conversations that go on by themselves.
pub struct Chatter {
    rounds: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Vec<Conversation>>>,
}

impl Chatter {
    /// Lets them talk, over and over.
    pub fn start(mut conversations: Vec<Conversation>) -> Self {
        let (rounds, ended) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (count, end) = (rounds.clone(), ended.clone());
        let thread = thread::Builder::new().name("chatter".to_owned()).spawn(move || {
            while !end.load(Ordering::SeqCst) {
                all_talk(&mut conversations)?;
                count.fetch_add(1, Ordering::SeqCst);
                thread::sleep(BREATH);
            }
            Ok(conversations)
        });
        Self { rounds, ended, thread: thread.expect("a thread") }
    }

    /// Waits until each has said and heard something that was not under way before.
    #[track_caller]
    pub fn goes_on(&self, when: &str) {
        // The first round to end may have begun before.
        let enough = self.rounds.load(Ordering::SeqCst) + 2;
        wait_for(&format!("conversations go on {when}"), || {
            let rounds = self.rounds.load(Ordering::SeqCst);
            (rounds >= enough || self.thread.is_finished()).then_some(())
        });
        assert!(!self.thread.is_finished(), "a conversation ended {when}");
    }

    /// Ends it; the connections stay open.
    #[track_caller]
    pub fn finish(self) -> Vec<Conversation> {
        self.ended.store(true, Ordering::SeqCst);
        self.thread.join().expect("no panic").expect("every conversation goes on")
    }
}

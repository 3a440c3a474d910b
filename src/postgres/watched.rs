//! A socket that can be left alone for a while.
//!
//! A registered socket wakes its thread with every packet, also while nobody wants to read: the walsender sends each
//! message by itself, so a reader that waits a millisecond for more of them is woken a hundred times in vain, and the
//! server pays for the waking. [`Watched::leave_alone`] takes the socket off the poller; the next read or write puts it
//! back, and finds whatever has come meanwhile. Both cost one system call.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A stream that the poller can be told to forget, and to know again.
pub trait Registered: AsyncRead + AsyncWrite + Unpin + Sized {
    /// The same stream, unknown to the poller.
    type Bare;

    /// Off the poller.
    fn off(self) -> io::Result<Self::Bare>;

    /// Back on it.
    fn on(bare: Self::Bare) -> io::Result<Self>;
}

impl Registered for TcpStream {
    type Bare = std::net::TcpStream;

    fn off(self) -> io::Result<Self::Bare> {
        self.into_std()
    }

    fn on(bare: Self::Bare) -> io::Result<Self> {
        Self::from_std(bare)
    }
}

impl Registered for UnixStream {
    type Bare = std::os::unix::net::UnixStream;

    fn off(self) -> io::Result<Self::Bare> {
        self.into_std()
    }

    fn on(bare: Self::Bare) -> io::Result<Self> {
        Self::from_std(bare)
    }
}

/// A stream, on the poller or off it.
#[derive(Debug)]
pub struct Watched<S: Registered> {
    state: State<S, S::Bare>,
}

#[derive(Debug)]
enum State<S, B> {
    On(S),
    Off(B),
    /// It could not be moved; its descriptor is closed.
    Lost,
}

impl<S: Registered> Watched<S> {
    /// A stream as it is opened: on the poller.
    pub fn new(stream: S) -> Self {
        Self { state: State::On(stream) }
    }

    /// Takes it off the poller until the next read or write.
    ///
    /// # Errors
    ///
    /// Where the poller will not let go of it; the stream is then lost.
    pub fn leave_alone(&mut self) -> io::Result<()> {
        self.state = match std::mem::replace(&mut self.state, State::Lost) {
            State::On(stream) => State::Off(stream.off()?),
            other => other,
        };
        Ok(())
    }

    fn on(&mut self) -> io::Result<Pin<&mut S>> {
        if let State::Off(_) = self.state
            && let State::Off(bare) = std::mem::replace(&mut self.state, State::Lost)
        {
            self.state = State::On(S::on(bare)?);
        }
        match &mut self.state {
            State::On(stream) => Ok(Pin::new(stream)),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl<S: Registered> AsyncRead for Watched<S>
where
    S::Bare: Unpin,
{
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.get_mut().on()?.poll_read(cx, buf)
    }
}

impl<S: Registered> AsyncWrite for Watched<S>
where
    S::Bare: Unpin,
{
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().on()?.poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().on()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().on()?.poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().on()?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        matches!(&self.state, State::On(stream) if stream.is_write_vectored())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (Watched<TcpStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Watched::new(ours), listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn what_comes_while_it_is_left_alone_is_there_at_the_next_read() {
        let (mut ours, mut theirs) = pair().await;
        let mut bytes = [0; 5];
        for _ in 0..3 {
            ours.leave_alone().unwrap();
            ours.leave_alone().unwrap();
            theirs.write_all(b"hello").await.unwrap();
            ours.read_exact(&mut bytes).await.unwrap();
            assert_eq!(&bytes, b"hello");
        }
        ours.leave_alone().unwrap();
        ours.write_all(b"there").await.unwrap();
        theirs.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"there");
    }

    #[tokio::test]
    async fn a_read_that_waits_after_it_was_left_alone_is_woken() {
        let (mut ours, mut theirs) = pair().await;
        ours.leave_alone().unwrap();
        let mut bytes = [0; 5];
        let late = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            theirs.write_all(b"hello").await.unwrap();
        };
        let (read, ()) = tokio::join!(ours.read_exact(&mut bytes), late);
        assert_eq!(read.unwrap(), 5);
    }

    #[tokio::test]
    async fn a_peer_that_went_away_meanwhile_is_noticed() {
        let (mut ours, theirs) = pair().await;
        ours.leave_alone().unwrap();
        drop(theirs);
        assert_eq!(ours.read(&mut [0; 5]).await.unwrap(), 0);
    }
}

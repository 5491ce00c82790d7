package wake

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// refuseNew makes the system ignore the packets that would begin a connection,
// and no others, so that handshakes under way still end well. A client that
// begins one now repeats its packet a second later, and is refused then. It
// reports whether it has: else a connection may still be lost.
//
// The listener must be the program's own: whoever shares it is filtered too.
func refuseNew(l *net.TCPListener) (done bool) {
	const flags, syn, ack = 13, 0x02, 0x10 // in the TCP header
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: flags},
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: syn | ack},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: syn, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1},
	}
	control(l, func(fd int) {
		done = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}) == nil
	})
	return done
}

// hasUnread reports whether something has arrived that nobody has read.
func hasUnread(c net.Conn) (unread bool) {
	if over, ok := c.(interface{ NetConn() net.Conn }); ok { // TLS
		c = over.NetConn()
	}
	if raw, ok := c.(syscall.Conn); ok {
		control(raw, func(fd int) {
			var b [1]byte
			n, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
			unread = n > 0 && err == nil
		})
	}
	return unread
}

// control calls f with the descriptor of c.
func control(c syscall.Conn, f func(fd int)) {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { f(int(fd)) }) // it fails if c is closed
	}
}

//go:build !linux

package wake

import "net"

// refuseNew can be done on Linux only.
func refuseNew(*net.TCPListener) bool { return false }

// hasUnread is asked on Linux only.
func hasUnread(net.Conn) bool { return false }

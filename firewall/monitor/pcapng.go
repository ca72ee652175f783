// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sort"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// Of a pcapng file (draft-ietf-opsawg-pcapng). A library writes it, too, but starts with every command, for 0.2 ms.
const (
	sectionBlock   = 0x0a0d0d0a
	interfaceBlock = 1
	packetBlock    = 6

	byteOrderMagic = 0x1a2b3c4d

	optionEnd         = 0
	optionComment     = 1
	optionName        = 2 // of an interface
	optionFlags       = 2 // of a packet
	optionApplication = 4
	optionResolution  = 9

	linkEthernet = 1
	linkRaw      = 101 // begins with an IP header

	flagInbound, flagOutbound = 1, 2
	nanoseconds               = 9
)

// Capture writes packets into a pcapng file, each with a comment that says what became of it and why.
type Capture struct {
	w          io.Writer
	file       *os.File // to be cut, or nil
	snaplen    int
	interfaces map[captureInterface]uint32
	buffer     []byte
	ends       []int // of packets in buffer
	written    int64 // bytes
	packets    int
}

type captureInterface struct {
	name     string
	ethernet bool
}

// CreateCapture creates a file, or empties one of this user's, for nobody else to read. Somebody else may have put another
// one in its place, or a link: these are refused.
func CreateCapture(path, application string, snaplen int) (*Capture, error) {
	// Not to truncate what is not ours, nor to wait for the reader of a pipe.
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	switch {
	case errors.Is(err, unix.ELOOP):
		return nil, fmt.Errorf("%s is a symbolic link: name the file that it leads to", path)
	case errors.Is(err, unix.ENXIO): // a pipe that nobody reads, or a socket
		return nil, notRegular(path)
	case err != nil:
		return nil, err
	}
	if err := claim(file); err != nil {
		file.Close()
		return nil, err
	}
	c, err := NewCapture(file, application, snaplen)
	c.file = file
	return c, err
}

func notRegular(path string) error {
	return fmt.Errorf("%s is no regular file: use \"--write - | ...\" for a pipe, or name another file", path)
}

// claim empties a file, unless it is another user's, or no file.
func claim(file *os.File) error {
	var stat unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &stat); err != nil {
		return err
	}
	switch {
	case stat.Mode&unix.S_IFMT != unix.S_IFREG:
		return notRegular(file.Name())
	case stat.Nlink != 1:
		return fmt.Errorf("%s has another name, under which somebody may need what it holds: remove this one, or name another file", file.Name())
	case stat.Uid != uint32(os.Geteuid()):
		return fmt.Errorf("%s belongs to another user (uid %d), who could read what is written: remove it, or name another file", file.Name(), stat.Uid)
	}
	return errors.Join(file.Chmod(0o600), file.Truncate(0))
}

// NewCapture begins a file in w.
func NewCapture(w io.Writer, application string, snaplen int) (*Capture, error) {
	c := &Capture{w: w, snaplen: snaplen, interfaces: make(map[captureInterface]uint32)}
	c.block(sectionBlock, func() {
		c.u32(byteOrderMagic)
		c.u16(1)
		c.u16(0)
		c.u64(^uint64(0)) // its length is not known
		c.option(optionApplication, []byte(application))
		c.endOptions()
	})
	return c, c.flush()
}

// Packets returns how many packets are in the file.
func (c *Capture) Packets() int { return c.packets }

// Write appends packets. If that fails, as where the disk is full, the file ends with the last one that is whole.
func (c *Capture) Write(packets []loader.MonitoredPacket) error {
	for i := range packets {
		p := &packets[i]
		number := c.interfaceOf(p)
		c.block(packetBlock, func() {
			ns := uint64(p.Time.UnixNano())
			c.u32(number)
			c.u32(uint32(ns >> 32))
			c.u32(uint32(ns))
			c.u32(uint32(len(p.Frame)))
			c.u32(uint32(max(p.Length, len(p.Frame))))
			c.bytes(p.Frame)
			c.option(optionComment, []byte(Comment(p)))
			flags := uint32(flagInbound)
			if p.Outbound {
				flags = flagOutbound
			}
			c.option(optionFlags, binary.LittleEndian.AppendUint32(nil, flags))
			c.endOptions()
		})
		c.ends = append(c.ends, len(c.buffer))
	}
	return c.flush()
}

// longestComment is how many bytes one has: a rule may be of any length, and a comment has 16 bits for its own.
const longestComment = 500

// Comment says what became of a packet and why: "drop: closed port", "pass: 80/tcp".
func Comment(p *loader.MonitoredPacket) string {
	text := p.Reason.Verdict() + ": " + quote.Text(Why(p))
	if len(text) <= longestComment {
		return text
	}
	return strings.ToValidUTF8(text[:longestComment], "") + "..."
}

// Why returns the reason of a packet, or the rule that let it in.
func Why(p *loader.MonitoredPacket) string {
	if p.Reason.IsRule() {
		return p.Rule
	}
	return p.Reason.String()
}

// flush writes what was put together.
func (c *Capture) flush() error {
	n, err := c.w.Write(c.buffer)
	whole := sort.Search(len(c.ends), func(i int) bool { return c.ends[i] > n })
	c.packets += whole
	if err != nil {
		if c.file != nil {
			end := c.written
			if whole > 0 {
				end += int64(c.ends[whole-1])
			}
			err = errors.Join(err, c.file.Truncate(end))
		}
		return &CaptureError{c.packets, err}
	}
	c.written += int64(n)
	c.buffer, c.ends = c.buffer[:0], c.ends[:0]
	return nil
}

// CaptureError says why a file could not be written on, and what is in it.
type CaptureError struct {
	Packets int
	Err     error
}

func (e *CaptureError) Error() string {
	cause := e.Err
	if path := new(fs.PathError); errors.As(cause, &path) {
		cause = path.Err
	}
	if e.Packets == 1 {
		return fmt.Sprintf("%v: it holds 1 packet", cause)
	}
	return fmt.Sprintf("%v: it holds %d packets", cause, e.Packets)
}

func (e *CaptureError) Unwrap() error { return e.Err }

// Close closes the file.
func (c *Capture) Close() error {
	if closer, ok := c.w.(io.Closer); ok {
		return closer.Close()
	}
	return nil
}

// interfaceOf returns the number of a packet's interface in the file.
func (c *Capture) interfaceOf(p *loader.MonitoredPacket) uint32 {
	key := captureInterface{p.Interface, p.Ethernet}
	number, known := c.interfaces[key]
	if known {
		return number
	}
	number = uint32(len(c.interfaces))
	c.interfaces[key] = number
	link := uint16(linkRaw)
	if p.Ethernet {
		link = linkEthernet
	}
	c.block(interfaceBlock, func() {
		c.u16(link)
		c.u16(0)
		c.u32(uint32(c.snaplen))
		c.option(optionName, []byte(quote.Text(p.Interface)))
		c.option(optionResolution, []byte{nanoseconds})
		c.endOptions()
	})
	return number
}

// block appends a block, whose length stands before and behind what body appends.
func (c *Capture) block(kind uint32, body func()) {
	begin := len(c.buffer)
	c.u32(kind)
	c.u32(0)
	body()
	length := uint32(len(c.buffer) - begin + 4)
	c.u32(length)
	binary.LittleEndian.PutUint32(c.buffer[begin+4:], length)
}

func (c *Capture) option(code uint16, value []byte) {
	c.u16(code)
	c.u16(uint16(len(value)))
	c.bytes(value)
}

func (c *Capture) endOptions() { c.u32(optionEnd) }

// bytes appends bytes, and what fills the last word.
func (c *Capture) bytes(b []byte) {
	c.buffer = append(c.buffer, b...)
	for range (4 - len(b)%4) % 4 {
		c.buffer = append(c.buffer, 0)
	}
}

func (c *Capture) u16(n uint16) { c.buffer = binary.LittleEndian.AppendUint16(c.buffer, n) }
func (c *Capture) u32(n uint32) { c.buffer = binary.LittleEndian.AppendUint32(c.buffer, n) }
func (c *Capture) u64(n uint64) { c.buffer = binary.LittleEndian.AppendUint64(c.buffer, n) }

// MaxSnaplen is the most that a file can hold of a frame.
const MaxSnaplen = maps.MaxSnaplen

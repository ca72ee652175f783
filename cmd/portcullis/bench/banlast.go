// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
)

const (
	lastRounds   = 3
	bansInRound  = 50                    // whose 99th percentile is one of the figures
	runningFlow  = 1e9                   // bits a second
	flowPayload  = 1400                  // bytes of a datagram
	flowBurst    = 8                     // datagrams that leave together
	late         = time.Millisecond      // without a datagram, and the flow is not running
	silence      = 10 * time.Millisecond // after which nothing more will come
	flowPatience = 5 * time.Second       // with a flow that does not begin, or does not end
)

// errNoFlow is returned where the sender had stopped before the ban: somebody else had its CPU.
var errNoFlow = errors.New("the flow was not running when its source was banned; is the machine busy?")

// banLast measures how long the packets of a running flow still come in once its source is banned: from before the write to
// the map, or the start of the command, to the kernel's time of the last datagram that a socket was given.
func (b *bench) banLast() error {
	dir, err := os.MkdirTemp("", "portcullis-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	self := filepath.Join(dir, "portcullis")
	if err := copySelf(self); err != nil {
		return err
	}
	subjects := b.chosen(keyPortcullis, keyTC, keyIptables, keyNft)
	r := rules{protocol: unix.IPPROTO_UDP, ports: []uint16{openPort}, blocked: 1}
	rounds, bans := min(b.options.Rounds, lastRounds), max(2, min(bansInRound, b.options.Frames/1000))
	begin := func(*stand) (end func(), err error) { return func() {}, nil }
	port := oneSource
	return b.onStands(subjects, r, rounds, begin, func(k *kind, s *stand) error {
		for _, way := range k.waysToBan(self) {
			b.progress.step("From a ban to the last packet: " + way.title)
			var took []float64
			for range bans {
				port++
				one, err := untilLast(s, way, port)
				for try := 1; errors.Is(err, errNoFlow) && try < tries; try++ {
					port++
					one, err = untilLast(s, way, port)
				}
				if err != nil {
					return err
				}
				took = append(took, micros(one))
			}
			slices.Sort(took)
			for _, p := range []int{50, 99} {
				w := Work{Key: fmt.Sprintf("ban-last-p%d", p), Unit: Microseconds, Title: fmt.Sprintf("From a ban to the last packet of a running 1 Gb/s flow, %dth percentile of %d", p, bans)}
				b.value(w, way.key, way.title, took[(len(took)-1)*p/100])
			}
		}
		return nil
	})
}

// wayToBan bans the outside address, in the room inside.
type wayToBan struct {
	key, title string
	ban        func() (begun time.Time, err error)
	unban      func() error
}

func (k *kind) waysToBan(self string) []wayToBan {
	source := outsideAddr.String()
	whole := func(title string, ban, unban []string) wayToBan {
		run := func(argv []string) error {
			_, _, err := timed(argv[0], argv[1:]...)
			return err
		}
		return wayToBan{k.key, title + ", the whole command",
			func() (time.Time, error) { return time.Now(), run(ban) }, func() error { return run(unban) }}
	}
	switch k.key {
	case keyIptables:
		return []wayToBan{whole("ipset add", []string{"ipset", "add", "bench", source}, []string{"ipset", "del", "bench", source})}
	case keyNft:
		element := " element ip bench blocked { " + source + " }"
		return []wayToBan{whole("nft add element", []string{"nft", "add" + element}, []string{"nft", "delete" + element})}
	}
	ours := []string{self, "--pin-path", pinPath}
	prefix := netip.PrefixFrom(outsideAddr, outsideAddr.BitLen())
	filter := func(work func(*loader.Filter) error) error {
		f, err := loader.Open(context.Background(), pinPath)
		if err != nil {
			return err
		}
		defer f.Close()
		return work(f)
	}
	return []wayToBan{
		whole(k.title, append(ours[:3:3], "ban", "--force", source), append(ours[:3:3], "unban", source)),
		{k.key + "-held", k.title + ", by a process that holds the filter open",
			func() (begun time.Time, err error) {
				err = filter(func(f *loader.Filter) error {
					begun = time.Now()
					_, err := f.PutBans([]maps.Ban{{Prefix: prefix, Until: begun.Add(time.Hour)}})
					return err
				})
				return begun, err
			},
			func() error {
				return filter(func(f *loader.Filter) error { _, err := f.RemoveBans([]netip.Prefix{prefix}); return err })
			}},
	}
}

// runningUDP is a flow of datagrams from outside, and when its last one has come in.
type runningUDP struct {
	stand    *stand
	from, to int          // sockets
	last     atomic.Int64 // by the kernel's clock of the day
	silences atomic.Int64 // how often nothing came for so long
	stopped  atomic.Bool
	waits    []func() error
}

// beginUDP lets the host inside begin the flow, so that it is an established one.
func beginUDP(s *stand, port int) (f *runningUDP, err error) {
	f = &runningUDP{stand: s, from: -1, to: -1}
	defer func() {
		if err != nil {
			f.end()
		}
	}()
	if err := s.inside.do(func() (err error) {
		f.to, err = datagrams(insideAddr, port, outsideAddr, openPort)
		return err
	}); err != nil {
		return nil, err
	}
	if err := s.outside.do(func() (err error) {
		f.from, err = datagrams(outsideAddr, openPort, insideAddr, port)
		return err
	}); err != nil {
		return nil, err
	}
	if _, err := unix.Write(f.to, []byte("begin")); err != nil {
		return nil, err
	}
	received := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		received <- onCPU(true, f.receive)
	}()
	f.waits = append(f.waits, func() error { return <-received }, s.outside.begin(func() error { return onCPU(false, f.send) }))
	return f, f.runs()
}

func datagrams(local netip.Addr, port int, remote netip.Addr, to int) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	for option, value := range map[int]int{unix.SO_TIMESTAMPNS: 1, unix.SO_RCVBUFFORCE: 16 << 20} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, value); err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	wait := unix.NsecToTimeval(silence.Nanoseconds())
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: local.As4(), Port: port})
	}
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Addr: remote.As4(), Port: to})
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// send keeps to its rate by looking at the clock.
func (f *runningUDP) send() error {
	payload := make([]byte, flowPayload)
	const apart = time.Second * flowBurst * flowPayload * 8 / runningFlow
	for next := time.Now(); !f.stopped.Load(); next = next.Add(apart) {
		for time.Now().Before(next) {
		}
		if late := time.Since(next); late > 100*apart {
			next = next.Add(late) // what was missed is not sent in a heap
		}
		for range flowBurst {
			_, _ = unix.Write(f.from, payload) // what is dropped may be answered by an error
		}
	}
	return nil
}

func (f *runningUDP) receive() error {
	payload, control := make([]byte, flowPayload), make([]byte, unix.CmsgSpace(int(unsafe.Sizeof(unix.Timespec{}))))
	for !f.stopped.Load() {
		_, n, _, _, err := unix.Recvmsg(f.to, payload, control, 0)
		if err != nil || n == 0 {
			f.silences.Add(1)
			continue
		}
		messages, err := unix.ParseSocketControlMessage(control[:n])
		if err != nil || len(messages) != 1 {
			return fmt.Errorf("a datagram without a time: %w", err)
		}
		f.last.Store((*unix.Timespec)(unsafe.Pointer(&messages[0].Data[0])).Nano())
	}
	return nil
}

// runs waits until the flow comes in.
func (f *runningUDP) runs() error {
	start := time.Now()
	for time.Since(start) < flowPatience {
		if f.last.Load() > start.UnixNano() {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return fmt.Errorf("the flow does not come in within %s", flowPatience)
}

// untilLast bans the source of a flow, and lifts the ban. Portcullis ends the flow and its socket, so each ban
// needs another.
func untilLast(s *stand, way wayToBan, port int) (took time.Duration, err error) {
	f, err := beginUDP(s, port)
	if err != nil {
		return 0, err
	}
	defer f.end()
	time.Sleep(5 * time.Millisecond)
	var begun time.Time
	if err := s.inside.do(func() (err error) {
		begun, err = way.ban()
		return err
	}); err != nil {
		return 0, err
	}
	for banned, silences := time.Now(), f.silences.Load(); f.silences.Load() == silences; time.Sleep(silence) {
		if time.Since(banned) > flowPatience {
			return 0, fmt.Errorf("%s: packets come in after the ban", way.title)
		}
	}
	took = time.Unix(0, f.last.Load()).Sub(begun)
	if took < -late {
		err = errNoFlow
	}
	return max(took, 0), errors.Join(err, s.inside.do(way.unban))
}

func (f *runningUDP) end() {
	f.stopped.Store(true)
	for _, wait := range f.waits {
		_ = wait()
	}
	for _, fd := range []int{f.from, f.to} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// pktgenDir is that of the calling thread's network namespace; /proc/net would be that of the process.
const pktgenDir = "/proc/thread-self/net/pktgen/"

// pktgen is the kernel's packet generator (Documentation/networking/pktgen.rst), which sends UDP. It is told so by
// lines of text, takes those that it does not understand without a word, and shows the flags that it has set.
type pktgen struct{ cards map[*stand]*card }

func (pktgen) name() string    { return "pktgen, which sends datagrams where it says SYN" }
func (pktgen) protocol() uint8 { return unix.IPPROTO_UDP }

// flowPorts is one: addresses and ports would count up each at its own pace.
func (pktgen) flowPorts() uint32 { return 1 }

// errNoPktgen says what to do, since loading a module is not for a benchmark to decide.
var errNoPktgen = errors.New("this kernel has no pktgen, or its module is not loaded: try \"modprobe pktgen\"")

// chooseGenerator returns the generator of that name. Auto takes pktgen where it is loaded, as it also drives network
// cards that take no frames from XDP.
func chooseGenerator(name string) (generator, error) {
	_, err := os.Stat(pktgenDir)
	switch {
	case name == "live", name == "auto" && err != nil, name == "" && err != nil:
		return live{}, nil
	case name != "pktgen" && name != "auto" && name != "":
		return nil, fmt.Errorf("--generator: there is no %q: choose auto, live or pktgen", name)
	case err != nil:
		return nil, errNoPktgen
	}
	return pktgen{make(map[*stand]*card)}, nil
}

// Copies of one packet that are sent in a row, where the device may be given the same one again; and how many are
// handed over at once.
const (
	pktgenClones = 64
	pktgenBurst  = 8
)

// card is a device that pktgen has been given: by one queue to each of some threads, which are known by their CPU.
type card struct {
	threads []int
	told    *pktgenSender // whose traffic it was told last
}

type pktgenSender struct {
	stand   *stand
	card    *card
	traffic traffic
	next    int // the flow that comes next, in order
}

// prepare finds the stand's card, or makes it: to take a device away from pktgen again takes it an eighth of a second.
func (g pktgen) prepare(s *stand, t traffic) (sender, error) {
	c := g.cards[s]
	if c == nil {
		c = &card{}
		if err := s.outside.do(func() error { return c.plug(s) }); err != nil {
			return nil, err
		}
		g.cards[s] = c
	}
	return &pktgenSender{stand: s, card: c, traffic: t}, nil
}

// plug gives the device to as many of pktgen's threads as it has queues, one each, and to one on a veth pair.
func (c *card) plug(s *stand) error {
	threads, err := os.ReadDir(pktgenDir)
	if err != nil {
		return err
	}
	queues := 1
	if !s.from.veth {
		l, err := netlink.LinkByIndex(s.from.index)
		if err != nil {
			return err
		}
		queues = max(1, l.Attrs().NumTxQueues)
		s.undo = append(s.undo, func() error { return s.outside.do(c.unplug) })
	}
	for _, t := range threads {
		if cpu, found := strings.CutPrefix(t.Name(), "kpktgend_"); found {
			number, err := strconv.Atoi(cpu)
			if err != nil {
				return err
			}
			c.threads = append(c.threads, number)
		}
	}
	// The last first: the first CPU is where interrupts go.
	slices.SortFunc(c.threads, func(a, b int) int { return b - a })
	c.threads = c.threads[:min(queues, len(c.threads))]
	for _, cpu := range c.threads {
		if err := tell(fmt.Sprintf("kpktgend_%d", cpu), fmt.Sprintf("add_device %s@%d", s.from.name, cpu)); err != nil {
			return err
		}
	}
	return nil
}

func (c *card) unplug() error {
	for _, cpu := range c.threads {
		if err := tell(fmt.Sprintf("kpktgend_%d", cpu), "rem_device_all"); err != nil {
			return err
		}
	}
	return nil
}

func (p *pktgenSender) device(cpu int) string { return fmt.Sprintf("%s@%d", p.stand.from.name, cpu) }

// tell writes one line to a file of pktgen.
func tell(file, line string) error {
	f, err := os.OpenFile(pktgenDir+file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString(line + "\n"); err != nil {
		return fmt.Errorf("pktgen: %s: %q: %w", file, line, err)
	}
	return nil
}

// describe tells a device what to send, and reads back whether it has understood.
func (p *pktgenSender) describe(cpu, queue int) error {
	t := p.traffic
	lines := []string{
		fmt.Sprintf("pkt_size %d", frameSize), "delay 0",
		"dst_mac " + p.stand.to.mac.String(), "src_mac " + p.stand.from.mac.String(),
		"dst_min " + insideAddr.String(), "dst_max " + insideAddr.String(),
		fmt.Sprintf("queue_map_min %d", queue), fmt.Sprintf("queue_map_max %d", queue),
	}
	source, last := firstSource, firstSource
	from, to := [2]uint16{oneSource, oneSource}, [2]uint16{t.port, t.port}
	var flags []string
	switch {
	case t.flows > 0:
		source, last = remote(0), remote(uint32(t.flows-1))
		from, to = [2]uint16{remotePort, remotePort}, [2]uint16{firstFlowPort, firstFlowPort}
	case t.randomSources:
		last = addrOf(wordOf(firstSource) + randomSource)
		flags = append(flags, "IPSRC_RND")
		if t.randomPorts {
			from, to = [2]uint16{1, 65535}, [2]uint16{openPort + 1, 65535}
			flags = append(flags, "UDPSRC_RND", "UDPDST_RND")
		}
	}
	lines = append(lines, "src_min "+source.String(), "src_max "+last.String(),
		fmt.Sprintf("udp_src_min %d", from[0]), fmt.Sprintf("udp_src_max %d", from[1]),
		fmt.Sprintf("udp_dst_min %d", to[0]), fmt.Sprintf("udp_dst_max %d", to[1]))
	clones, burst := 0, 1
	if p.repeats() {
		clones, burst = pktgenClones, pktgenBurst
	}
	lines = append(lines, fmt.Sprintf("clone_skb %d", clones), fmt.Sprintf("burst %d", burst))
	for _, f := range pktgenFlags {
		if !slices.Contains(flags, f) {
			f = "!" + f
		}
		lines = append(lines, "flag "+f)
	}
	for _, line := range lines {
		if err := tell(p.device(cpu), line); err != nil {
			return err
		}
	}
	return p.understood(cpu, flags)
}

// repeats reports whether one packet may be sent many times over: never to virtual devices, which keep it, and not where
// each differs.
func (p *pktgenSender) repeats() bool {
	return !p.stand.from.veth && !p.traffic.randomSources && p.traffic.flows <= 1
}

// pktgenFlags are those that are used here.
var pktgenFlags = []string{"IPSRC_RND", "UDPSRC_RND", "UDPDST_RND"}

var pktgenFlagLine = pattern(`(?m)^\s*Flags: (.*)$`)

// understood compares the flags that are set with those that were asked for.
func (p *pktgenSender) understood(cpu int, flags []string) error {
	text, err := os.ReadFile(pktgenDir + p.device(cpu))
	if err != nil {
		return err
	}
	var set []string
	if found := pktgenFlagLine().FindSubmatch(text); found != nil {
		set = strings.Fields(string(found[1]))
	}
	for _, f := range pktgenFlags {
		if slices.Contains(set, f) != slices.Contains(flags, f) {
			return fmt.Errorf("pktgen: %s: it has set the flags %q and not %q", p.device(cpu), set, flags)
		}
	}
	return nil
}

// Result: OK: 1234(c1200+d34) usec, 100000 (60byte,0frags)
var pktgenResult = pattern(`Result: OK: (\d+)\([^)]*\) usec, (\d+) \(`)

func (p *pktgenSender) send(frames int) (b burst, err error) {
	err = p.stand.outside.do(func() error {
		each := max(1, frames/len(p.card.threads))
		for queue, cpu := range p.card.threads {
			if p.card.told != p {
				if err := p.describe(cpu, queue); err != nil {
					return err
				}
			}
			if err := p.order(cpu, each); err != nil {
				return err
			}
		}
		p.card.told = p
		if err := tell("pgctrl", "start"); err != nil { // returns when all has been sent
			return err
		}
		for _, cpu := range p.card.threads {
			took, sent, err := p.result(cpu)
			if err != nil {
				return err
			}
			b.frames += sent
			b.took = max(b.took, took)
		}
		return nil
	})
	return b, err
}

// order says how many frames to send, and of which flows where each is to be met once.
func (p *pktgenSender) order(cpu, frames int) error {
	lines := []string{fmt.Sprintf("count %d", frames)}
	if p.traffic.inOrder {
		lines = append(lines, "src_min "+remote(uint32(p.next)).String(), "src_max "+remote(uint32(p.next+frames-1)).String())
		p.next += frames
	}
	for _, line := range lines {
		if err := tell(p.device(cpu), line); err != nil {
			return err
		}
	}
	return nil
}

// result reads what a thread has to say when it is done, which it writes a moment after it says that it is.
func (p *pktgenSender) result(cpu int) (took time.Duration, sent uint64, err error) {
	var text []byte
	var found [][]byte
	for start := time.Now(); found == nil; time.Sleep(time.Millisecond) {
		if text, err = os.ReadFile(pktgenDir + p.device(cpu)); err != nil {
			return 0, 0, err
		}
		if found = pktgenResult().FindSubmatch(text); found == nil && time.Since(start) > patience {
			return 0, 0, fmt.Errorf("pktgen: %s: it did not send: %s", p.device(cpu), strings.TrimSpace(string(text)))
		}
	}
	micros, err := strconv.ParseInt(string(found[1]), 10, 64)
	if err != nil {
		return 0, 0, err
	}
	sent, err = strconv.ParseUint(string(found[2]), 10, 64)
	return time.Duration(micros) * time.Microsecond, sent, err
}

// close leaves the card to the stand.
func (p *pktgenSender) close() error { return nil }

// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// pktgenDir is that of the calling thread's network namespace; /proc/net would be that of the process.
const pktgenDir = "/proc/thread-self/net/pktgen/"

// pktgen is the kernel's packet generator (Documentation/networking/pktgen.rst), which sends UDP. It is told so by
// lines of text, takes those that it does not understand without a word, and shows the flags that it has set.
type pktgen struct{}

func (pktgen) name() string    { return "pktgen" }
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
	return pktgen{}, nil
}

// Copies of one packet that are sent in a row, where the device may be given the same one again; and how many are
// handed over at once.
const (
	pktgenClones = 64
	pktgenBurst  = 8
)

type pktgenSender struct {
	stand   *stand
	traffic traffic
	threads []int // CPUs
	next    int   // the flow that comes next, in order
}

func (pktgen) prepare(s *stand, t traffic) (sender, error) {
	p := &pktgenSender{stand: s, traffic: t}
	return p, s.outside.do(func() error { return p.plug() })
}

// plug gives the device to as many of pktgen's threads as it has queues, one each, and to one on a veth pair.
func (p *pktgenSender) plug() error {
	threads, err := os.ReadDir(pktgenDir)
	if err != nil {
		return err
	}
	queues := 1
	if !p.stand.from.veth {
		found, _ := os.ReadDir("/sys/class/net/" + p.stand.from.name + "/queues")
		queues = 0
		for _, q := range found {
			if strings.HasPrefix(q.Name(), "tx-") {
				queues++
			}
		}
		queues = max(1, queues)
	}
	for _, t := range threads {
		cpu, found := strings.CutPrefix(t.Name(), "kpktgend_")
		number, err := strconv.Atoi(cpu)
		if !found || err != nil {
			continue
		}
		if err := tell(t.Name(), "rem_device_all"); err != nil {
			return err
		}
		p.threads = append(p.threads, number)
	}
	// The last first: the first CPU is where interrupts go.
	slices.SortFunc(p.threads, func(a, b int) int { return b - a })
	p.threads = p.threads[:min(queues, len(p.threads))]
	for queue, cpu := range p.threads {
		if err := tell(fmt.Sprintf("kpktgend_%d", cpu), "add_device "+p.device(cpu)); err != nil {
			return err
		}
		if err := p.describe(cpu, queue); err != nil {
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
	flags := []string{}
	source, last := firstSource, firstSource
	from, to := [2]uint16{oneSource, oneSource}, [2]uint16{t.port, t.port}
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
	if clones := p.clones(); clones > 0 {
		lines = append(lines, fmt.Sprintf("clone_skb %d", clones), fmt.Sprintf("burst %d", pktgenBurst))
	}
	for _, f := range flags {
		lines = append(lines, "flag "+f)
	}
	for _, line := range lines {
		if err := tell(p.device(cpu), line); err != nil {
			return err
		}
	}
	return p.understood(cpu, flags)
}

// clones is how often one packet may be sent: never on virtual devices, which keep it, and not where each differs.
func (p *pktgenSender) clones() int {
	if p.stand.from.veth || p.traffic.randomSources || p.traffic.flows > 1 {
		return 0
	}
	return pktgenClones
}

var pktgenFlags = regexp.MustCompile(`(?m)^\s*Flags: (.*)$`)

// understood compares the flags that are set with those that were asked for.
func (p *pktgenSender) understood(cpu int, flags []string) error {
	text, err := os.ReadFile(pktgenDir + p.device(cpu))
	if err != nil {
		return err
	}
	var set []string
	if found := pktgenFlags.FindSubmatch(text); found != nil {
		set = strings.Fields(string(found[1]))
	}
	for _, f := range flags {
		if !slices.Contains(set, f) {
			return fmt.Errorf("pktgen: %s: flag %s is not set, only %q", p.device(cpu), f, set)
		}
	}
	return nil
}

// Result: OK: 1234(c1200+d34) usec, 100000 (60byte,0frags)
var pktgenResult = regexp.MustCompile(`Result: OK: (\d+)\([^)]*\) usec, (\d+) \(`)

func (p *pktgenSender) send(frames int) (b burst, err error) {
	err = p.stand.outside.do(func() error {
		each := max(1, frames/len(p.threads))
		for _, cpu := range p.threads {
			if err := p.order(cpu, each); err != nil {
				return err
			}
		}
		if err := tell("pgctrl", "start"); err != nil { // returns when all has been sent
			return err
		}
		for _, cpu := range p.threads {
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

func (p *pktgenSender) result(cpu int) (took time.Duration, sent uint64, err error) {
	text, err := os.ReadFile(pktgenDir + p.device(cpu))
	if err != nil {
		return 0, 0, err
	}
	found := pktgenResult.FindSubmatch(text)
	if found == nil {
		return 0, 0, fmt.Errorf("pktgen: %s: it did not send: %s", p.device(cpu), strings.TrimSpace(string(text)))
	}
	micros, err := strconv.ParseInt(string(found[1]), 10, 64)
	if err != nil {
		return 0, 0, err
	}
	sent, err = strconv.ParseUint(string(found[2]), 10, 64)
	return time.Duration(micros) * time.Microsecond, sent, err
}

func (p *pktgenSender) close() error {
	return p.stand.outside.do(func() error {
		for _, cpu := range p.threads {
			if err := tell(fmt.Sprintf("kpktgend_%d", cpu), "rem_device_all"); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	})
}

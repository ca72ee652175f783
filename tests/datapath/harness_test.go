// SPDX-License-Identifier: Apache-2.0

// Package datapath runs frames through the programs as they are loaded into the kernel, and asserts for each what
// became of it and under which reason it was counted.
package datapath

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/bpf"
	dpmaps "github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/maps/leaktest"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

// want is what is to become of a frame.
type want struct {
	passes bool
	reason bpf.FirewallReason
	rule   string             // of a frame that a rule lets in
	kind   bpf.FirewallReason // SEEN_INVALID_..., or 0
}

// of says what is invalid about the frame.
func (w want) of(kind bpf.FirewallReason) want {
	w.kind = kind
	return w
}

const (
	badHeader   = bpf.FirewallReasonSEEN_INVALID_HEADER
	wrongLength = bpf.FirewallReasonSEEN_INVALID_LENGTH
	impossible  = bpf.FirewallReasonSEEN_INVALID_FLAGS
	wrongState  = bpf.FirewallReasonSEEN_INVALID_STATE
	noFlow      = bpf.FirewallReasonSEEN_INVALID_ICMP
)

var (
	notIP       = want{passes: true, reason: bpf.FirewallReasonPASS_NOT_IP}
	otherHost   = want{passes: true, reason: bpf.FirewallReasonPASS_OTHER_HOST}
	established = want{passes: true, reason: bpf.FirewallReasonPASS_ESTABLISHED}
	related     = want{passes: true, reason: bpf.FirewallReasonPASS_RELATED}
	icmpOpen    = want{passes: true, reason: bpf.FirewallReasonPASS_ICMP}
	discovery   = want{passes: true, reason: bpf.FirewallReasonPASS_NEIGHBOR_DISCOVERY}
	dhcp        = want{passes: true, reason: bpf.FirewallReasonPASS_DHCP}
	fragment    = want{passes: true, reason: bpf.FirewallReasonPASS_FRAGMENT}
	forwarded   = want{passes: true, reason: bpf.FirewallReasonPASS_FORWARD}
	inputOpen   = want{passes: true, reason: bpf.FirewallReasonPASS_INPUT}
	invalidOpen = want{passes: true, reason: bpf.FirewallReasonPASS_INVALID}

	closedPort   = want{reason: bpf.FirewallReasonDROP_CLOSED_PORT}
	wrongSource  = want{reason: bpf.FirewallReasonDROP_SOURCE}
	overLimit    = want{reason: bpf.FirewallReasonDROP_LIMIT}
	icmpClosed   = want{reason: bpf.FirewallReasonDROP_ICMP}
	protocol     = want{reason: bpf.FirewallReasonDROP_PROTOCOL}
	notForwarded = want{reason: bpf.FirewallReasonDROP_FORWARD}
	invalid      = want{reason: bpf.FirewallReasonDROP_INVALID}
	badVLAN      = want{reason: bpf.FirewallReasonDROP_BAD_VLAN}
	badIPv4      = want{reason: bpf.FirewallReasonDROP_BAD_IPV4}
	badIPv6      = want{reason: bpf.FirewallReasonDROP_BAD_IPV6}
	badExtension = want{reason: bpf.FirewallReasonDROP_BAD_EXTENSION}
	badTransport = want{reason: bpf.FirewallReasonDROP_BAD_TRANSPORT}
	tinyFragment = want{reason: bpf.FirewallReasonDROP_TINY_FRAGMENT}
)

// rule is the want of a frame that the rule of that text lets in.
func rule(text string) want { return want{passes: true, rule: text} }

// step is something that happens before the frame that a case is about.
type step func(testing.TB, *trial)

// trial is one case on one way into the host.
type trial struct {
	*testdp.Datapath
	path testdp.Path
	from testdp.From
}

// sent is a frame that this host sends, and routed one that it sends on for somebody else.
func sent(frame []byte) step   { return leaves(frame, testdp.From{}) }
func routed(frame []byte) step { return leaves(frame, testdp.From{Routed: 1}) }

func leaves(frame []byte, from testdp.From) step {
	return func(t testing.TB, r *trial) {
		t.Helper()
		r.Counted(t)
		if !r.Passes(t, testdp.Out, frame, from) {
			t.Fatal("a frame on the way out was dropped")
		}
		if up := r.Counted(t); len(up) > 0 {
			t.Fatalf("a frame on the way out was counted: %v", up)
		}
	}
}

// received is a frame that comes in, and refused is one that would.
func received(frame []byte) step { return arrives(frame, true) }
func refused(frame []byte) step  { return arrives(frame, false) }

func arrives(frame []byte, passes bool) step {
	return func(t testing.TB, r *trial) {
		t.Helper()
		if got := r.Passes(t, r.path, frame, r.from); got != passes {
			t.Fatalf("on the way to the case, a frame passes: %v, want %v (%v)", got, passes, r.Counted(t))
		}
	}
}

// waited lets time go by.
func waited(d time.Duration) step {
	return func(t testing.TB, r *trial) {
		t.Helper()
		r.Advance(t, d)
	}
}

// after goes on with a story. It leaves the story itself as it is, for others to go on with.
func after(story []step, more ...step) []step { return append(slices.Clip(story), more...) }

// arrival is a frame that comes in, and what is to become of it.
type arrival struct {
	name   string
	before []step
	frame  []byte
	want   want
	from   testdp.From
}

// arrive runs each case on XDP and on TC, beginning with an empty flow table.
func arrive(t *testing.T, d *testdp.Datapath, cases []arrival) {
	t.Helper()
	arriveAt(t, nil, d, cases)
}

// arriveAt is arrive for frames that come in at a host, where devices and routes matter.
func arriveAt(t *testing.T, host *lab.Host, d *testdp.Datapath, cases []arrival) {
	t.Helper()
	for _, path := range testdp.Ingress {
		for _, c := range cases {
			if !testdp.CanRun(path, c.frame) {
				continue
			}
			t.Run(fmt.Sprintf("%s/%s", path, c.name), func(t *testing.T) {
				if host != nil {
					testdp.Enter(t, host.Name)
				}
				d.Forget(t)
				r := &trial{d, path, c.from}
				for _, s := range c.before {
					s(t, r)
				}
				r.expect(t, c.frame, c.want)
			})
		}
	}
}

// expect runs a frame and checks its verdict, and that it was counted once, under the wanted reason and
// what is wanted besides, and no other. What is to be dropped passes before, while the filter only watches.
func (r *trial) expect(t testing.TB, frame []byte, w want) {
	t.Helper()
	if !w.passes && w.rule == "" {
		watch(t, r.Datapath, true)
		watched := w
		watched.passes, watched.reason = true, bpf.FirewallReason(dpmaps.Reason(w.reason).Watched())
		r.expectOnce(t, frame, watched)
		watch(t, r.Datapath, false)
	}
	r.expectOnce(t, frame, w)
}

func watch(t testing.TB, d *testdp.Datapath, on bool) {
	t.Helper()
	if err := d.Set.SetWatching(on); err != nil {
		t.Fatal(err)
	}
}

func (r *trial) expectOnce(t testing.TB, frame []byte, w want) {
	t.Helper()
	if w.rule == "" {
		expected[w.reason] = true
	}
	r.Counted(t)
	passes := r.Passes(t, r.path, frame, r.from)
	reason := dpmaps.Reason(w.reason)
	if w.rule != "" {
		if reason = r.Rule(w.rule); reason == 0 {
			t.Fatalf("the policy has no rule %q", w.rule)
		}
	}
	wanted := map[dpmaps.Reason]uint64{reason: 1}
	if w.kind != 0 {
		expected[w.kind] = true
		wanted[dpmaps.Reason(w.kind)] = 1
	}
	if up := r.Counted(t); passes != w.passes || !maps.Equal(up, wanted) {
		t.Errorf("passes: %v, counted %v; want %v and %v\n%x", passes, up, w.passes, wanted, frame)
	}
}

// mostLoaded bounds what loaded keeps: one has a hundred file descriptors, of which a small machine allows 4,096.
const mostLoaded = 24

// loaded keeps the datapaths that several tests use, those that were used last at the end: to verify one takes the
// kernel a second.
var loaded []loadedDatapath

type loadedDatapath struct {
	*testdp.Datapath
	options testdp.Options
	test    string // the last that used it
}

// makeRoom closes the datapath that no test has used for longest. The running test may still use its own.
func makeRoom(test string) {
	for i, l := range loaded {
		if len(loaded) >= mostLoaded && l.test != test {
			l.Close()
			loaded = slices.Delete(loaded, i, i+1)
			return
		}
	}
}

// load returns a datapath with a policy, as new.
func load(t testing.TB, o testdp.Options) *testdp.Datapath {
	t.Helper()
	test, _, _ := strings.Cut(t.Name(), "/")
	var d *testdp.Datapath
	if i := slices.IndexFunc(loaded, func(l loadedDatapath) bool { return l.options == o }); i >= 0 {
		d = loaded[i].Datapath
		loaded = slices.Delete(loaded, i, i+1)
	} else {
		lab.RequireRoot(t)
		makeRoom(test)
		var err error
		if d, err = testdp.Open(o); err != nil {
			var verifier *ebpf.VerifierError
			if errors.As(err, &verifier) {
				t.Fatalf("%+v", verifier)
			}
			t.Fatal(err)
		}
	}
	loaded = append(loaded, loadedDatapath{d, o, test})
	d.Forget(t)
	return d
}

// expected lists the reasons that some case has asked for.
var expected = map[bpf.FirewallReason]bool{ // TestAFullTableCounts
	bpf.FirewallReasonSEEN_FLOWS_FULL: true, bpf.FirewallReasonSEEN_FLOWS_EVICTED: true,
}

func TestMain(m *testing.M) {
	if order := os.Getenv(victimVariable); order != "" {
		swapAndDie(order)
	}
	code := leaktest.Main(m, func() {
		for _, d := range loaded {
			d.Close()
		}
	})
	if code == 0 && wholeRun() {
		for _, reason := range dpmaps.Reasons() {
			if !expected[bpf.FirewallReason(reason)] {
				fmt.Printf("no case ends with %s, %s\n", reason.Verdict(), reason)
				code = 1
			}
		}
	}
	os.Exit(code)
}

// wholeRun reports whether every test of the package has run.
func wholeRun() bool {
	for _, name := range []string{"run", "skip", "list", "fuzz"} {
		if flag.Lookup("test."+name).Value.String() != "" {
			return false
		}
	}
	return flag.Lookup("test.fuzzworker").Value.String() != "true" && os.Geteuid() == 0
}

// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"fmt"
	gomaps "maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
)

// JournalTime is how long packets of one source and reason are counted after the first one, before that is told.
const JournalTime = 10 * time.Second

// The most sources of a reason that are told apart in that time. What comes from others is counted together.
const mostSources = 16

// Record is a message for the journal, with the fields that it has there.
type Record struct {
	Message string
	Fields  map[string]string
}

// Journal makes records of packets: one for the first from a source under a reason, and one for how many came after it. So
// nobody fills the journal, whatever he sends.
type Journal struct {
	since  time.Time
	more   map[journalKey]*tally
	order  []journalKey
	before map[string]uint64 // what the ledger had counted under a reason when the time began
}

// journalKey is what packets are counted by; without a source, all others of a reason.
type journalKey struct {
	reason    string
	wouldDrop bool
	source    netip.Addr
}

func (k journalKey) text() string { return reasonText(k.reason, k.wouldDrop) }

// reasonText returns a reason, with what became of the packet where that is not what the reason says.
func reasonText(reason string, wouldDrop bool) string {
	if wouldDrop {
		return maps.WouldDrop + ": " + reason
	}
	return reason
}

type tally struct {
	told    bool // of the first
	packets int  // after it
	sources int  // of the reason, that are told apart
}

// NewJournal returns a journal in which nothing is.
func NewJournal() *Journal {
	return &Journal{more: make(map[journalKey]*tally), before: make(map[string]uint64)}
}

// Begin sets from which counts of the ledger on packets are in the journal, for reasons that were not in it; nil where these
// are not known.
func (j *Journal) Begin(counted map[string]uint64, reasons []string) {
	for _, reason := range reasons {
		if j.before == nil {
			j.before = make(map[string]uint64)
		}
		if delete(j.before, reason); counted != nil {
			j.before[reason] = counted[reason]
		}
	}
}

// Add returns the record of a packet, or nil where it is counted with others.
func (j *Journal) Add(p loader.LoggedPacket, now time.Time) *Record {
	if len(j.order) == 0 {
		j.since = now
	}
	read, _ := Read(p.Frame, p.Ethernet)
	key, others := journalKey{p.Reason, p.WouldDrop, read.Source}, journalKey{reason: p.Reason, wouldDrop: p.WouldDrop}
	if j.more[key] == nil {
		switch all := j.count(others); {
		case all.sources == mostSources:
			key = others
		case read.Source.IsValid():
			all.sources++
		}
	}
	t := j.count(key)
	if t.told {
		t.packets++
		return nil
	}
	t.told = true
	return &Record{fmt.Sprintf("%s on %s: %s, %d bytes", reasonText(p.Reason, p.WouldDrop), p.Interface, Describe(p.Frame, p.Ethernet), p.Length), fields(p, read)}
}

func (j *Journal) count(key journalKey) *tally {
	t := j.more[key]
	if t == nil {
		t = &tally{}
		j.more[key] = t
		j.order = append(j.order, key)
	}
	return t
}

// Due reports whether it is time for summaries.
func (j *Journal) Due(now time.Time) bool { return len(j.order) > 0 && now.Sub(j.since) >= JournalTime }

// Summaries returns a record for each source and reason of which more came, and begins anew. The datapath gives the journal
// a part of a flood; how large that was, what the ledger has counted by now tells: nil where that is not known.
func (j *Journal) Summaries(now time.Time, counted map[string]uint64) (out []Record) {
	span := now.Sub(j.since).Round(time.Second)
	slices.SortStableFunc(j.order, func(a, b journalKey) int { return j.more[b].packets - j.more[a].packets })
	given := make(map[string]uint64)
	for _, key := range j.order {
		if t := j.more[key]; t.told {
			given[key.reason] += 1 + uint64(t.packets)
		}
	}
	for _, key := range j.order {
		t := j.more[key]
		if t.packets == 0 {
			continue
		}
		from, extra := "other sources", map[string]string{"REASON": key.reason, "PACKETS": strconv.Itoa(t.packets)}
		if key.wouldDrop {
			extra["VERDICT"] = maps.WouldDrop
		}
		if key.source.IsValid() {
			from = key.source.String()
			extra["SOURCE"] = from
		}
		least, all := "", ""
		if n := j.grown(key.reason, counted); n > given[key.reason] {
			least, all = "at least ", fmt.Sprintf("; %s %s", Thousands(n), countedAs(key.reason))
			extra["REASON_PACKETS"] = strconv.FormatUint(n, 10)
		}
		out = append(out, Record{fmt.Sprintf("%s: %s%s more from %s in %s%s", key.text(), least, Thousands(uint64(t.packets)), from, span, all), extra})
	}
	j.more, j.order = make(map[journalKey]*tally), nil
	j.before = gomaps.Clone(counted)
	return out
}

// grown returns how many packets the ledger has counted under a reason since the time began, or since it began anew.
func (j *Journal) grown(reason string, counted map[string]uint64) uint64 {
	now, before := counted[reason], j.before[reason]
	if _, known := j.before[reason]; !known {
		return 0
	}
	if now < before {
		return now
	}
	return now - before
}

// countedAs says what became of packets under a reason. A kind of invalid packets is no verdict.
func countedAs(reason string) string {
	if strings.HasPrefix(reason, "invalid ") {
		return "counted as " + reason
	}
	return "dropped for " + reason
}

// Thousands writes a number with commas: 1,204,331.
func Thousands(n uint64) string {
	digits := strconv.FormatUint(n, 10)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// fields returns what a query of the journal may ask for.
func fields(p loader.LoggedPacket, read Packet) map[string]string {
	out := map[string]string{"INTERFACE": p.Interface, "REASON": p.Reason, "LENGTH": strconv.Itoa(p.Length)}
	if p.WouldDrop {
		out["VERDICT"] = maps.WouldDrop
	}
	if !read.Source.IsValid() {
		return out
	}
	out["PROTOCOL"], out["SOURCE"], out["DESTINATION"] = read.Protocol, read.Source.String(), read.Destination.String()
	if read.HasPorts {
		out["SOURCE_PORT"], out["DESTINATION_PORT"] = strconv.Itoa(int(read.SourcePort)), strconv.Itoa(int(read.DestPort))
	}
	if read.HasType {
		out["ICMP_TYPE"], out["ICMP_CODE"] = strconv.Itoa(int(read.Type)), strconv.Itoa(int(read.Code))
	}
	return out
}

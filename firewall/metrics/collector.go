// SPDX-License-Identifier: Apache-2.0

// Package metrics tells Prometheus what a firewall is and has done. Whatever is told is read when somebody asks.
package metrics

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// Source is a firewall.
type Source interface {
	View(context.Context) (firewall.Filter, error)
}

// Agent is how the agent is that serves the metrics.
type Agent struct {
	Started  time.Time
	Looked   time.Time // when it last looked at the filter
	Problem  bool      // the policy file is not in force
	Errors   int       // that it logged
	Warnings int
	ErrorAt  time.Time // of the last error
}

const (
	patience    = time.Second      // for a command that exchanges the filter
	countPeriod = 15 * time.Second // at least between two counts of flows: a million take longer than a scrape may
)

// Collector reads a firewall whenever it is asked.
type Collector struct {
	source  Source
	version string
	agent   func() Agent // nil: nobody

	mu     sync.Mutex // of the following
	before *loader.Sample
	flows  flowCount
	rules  ruleLabels
}

// flowCount is the last count of flows. One goroutine at a time makes it.
type flowCount struct {
	byState map[string]int
	at      time.Time
	running bool
}

// New returns a collector.
func New(source Source, version string, agent func() Agent) *Collector {
	return &Collector{source: source, version: version, agent: agent}
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("portcullis_"+name, help, labels, nil)
}

var (
	buildInfo = desc("build_info", "The version of Portcullis and of Go that it was built with.", "version", "goversion")
	up        = desc("up", "Whether a filter runs and could be read.")

	enforcing = desc("enforcing", "Whether what the policy has dropped is dropped: 0 while the filter only watches.")

	packets = desc("packets_total", "Packets that came in, by interface and by what decided them. The reason \"rule\" stands for all rules.", "interface", "verdict", "reason")
	bytes   = desc("bytes_total", "Bytes of the frames of these packets, with link headers.", "interface", "verdict", "reason")
	unsent  = desc("unsent_packets_total", "Routed packets that were not let out by an interface.", "interface")
	merged  = desc("merged_frames_total", "Frames that the kernel had merged into packets before TC saw them, without the first of each.", "interface")
	seen    = desc("events_total", "What is counted besides verdicts: invalid packets by kind, and what became of flows.", "event")

	listPackets  = desc("list_packets_total", "Packets that a block list dropped.", "list")
	listNetworks = desc("list_networks", "Networks of a block list.", "list")
	listSince    = desc("list_timestamp_seconds", "When the networks of a block list were first in force.", "list")
	banPackets   = desc("ban_packets_total", "Packets that bans dropped, by the reason of the bans.", "ban_reason")

	flows       = desc("flows", "Live flows by state, at the last count.", "state")
	flowsAt     = desc("flows_counted_timestamp_seconds", "When flows were last counted by state.")
	flowEntries = desc("flow_table_entries", "Places of the flow table that are taken, by flows that have ended, too.")
	flowsMax    = desc("flow_table_max", "The most flows that the table keeps.")
	evicted     = desc("flows_evicted_total", "Flows that gave their place to new ones.")
	refused     = desc("flows_refused_total", "Packets that would have begun a flow, and found no room.")

	interfaceUp   = desc("interface_filtered", "Whether an interface that is meant to be filtered is.", "interface", "mode")
	policySince   = desc("policy_applied_timestamp_seconds", "When the policy in force was put in force.")
	policyRules   = desc("policy_rules", "Rules in force.")
	policyProblem = desc("policy_file_problem", "Whether the policy file, or a list, is not in force because of what is wrong with it.")
	agentStart    = desc("agent_start_timestamp_seconds", "When the agent began.")
	agentLooked   = desc("agent_looked_timestamp_seconds", "When the agent last looked at the filter.")
	agentLogged   = desc("agent_messages_total", "Messages that the agent logged.", "level")
	agentErrorAt  = desc("agent_last_error_timestamp_seconds", "When the agent last logged an error; 0 is never.")
)

// Describe implements [prometheus.Collector]. There is nothing to describe before it is read: what there is depends on the
// filter.
func (c *Collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements [prometheus.Collector].
func (c *Collector) Collect(out chan<- prometheus.Metric) {
	e := emitter{out}
	e.gauge(buildInfo, 1, c.version, runtime.Version())
	if c.agent != nil {
		e.agent(c.agent())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	sample, err := c.read(ctx)
	if err != nil {
		c.before = nil
		e.gauge(up, 0)
		if !errors.Is(err, loader.ErrNotRunning) {
			out <- prometheus.NewInvalidMetric(up, fmt.Errorf("read the filter: %w", err))
		}
		return
	}
	e.gauge(up, 1)
	e.sample(sample)
	if c.flows.byState != nil {
		for state, n := range c.flows.byState {
			e.gauge(flows, float64(n), state)
		}
		e.time(flowsAt, c.flows.at)
	}
}

func (c *Collector) read(ctx context.Context) (*loader.Sample, error) {
	f, err := c.source.View(ctx)
	if err != nil {
		c.flows.byState = nil
		return nil, err
	}
	defer f.Close()
	sample, err := f.Sample(c.before)
	if err != nil {
		return nil, err
	}
	c.before = sample
	if !c.flows.running && time.Since(c.flows.at) > countPeriod {
		c.flows.running = true
		go c.countFlows()
	}
	return sample, nil
}

// countFlows walks through the flow table, for the scrapes to come.
func (c *Collector) countFlows() {
	var byState map[string]int
	f, err := c.source.View(context.Background())
	if err == nil {
		byState, err = f.CountFlowStates()
		f.Close()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flows.running = false
	if err == nil {
		c.flows.byState, c.flows.at = byState, time.Now()
	}
}

type emitter struct{ out chan<- prometheus.Metric }

func (e emitter) emit(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels []string) {
	m, err := prometheus.NewConstMetric(d, kind, value, labels...)
	if err != nil {
		m = prometheus.NewInvalidMetric(d, err)
	}
	e.out <- m
}

func (e emitter) gauge(d *prometheus.Desc, value float64, labels ...string) {
	e.emit(d, prometheus.GaugeValue, value, labels)
}

func (e emitter) counter(d *prometheus.Desc, value uint64, labels ...string) {
	e.emit(d, prometheus.CounterValue, float64(value), labels)
}

func (e emitter) time(d *prometheus.Desc, at time.Time, labels ...string) {
	value := 0.0
	if !at.IsZero() {
		value = float64(at.UnixMilli()) / 1e3
	}
	e.gauge(d, value, labels...)
}

func (e emitter) agent(a Agent) {
	e.time(agentStart, a.Started)
	e.time(agentLooked, a.Looked)
	e.time(agentErrorAt, a.ErrorAt)
	e.counter(agentLogged, uint64(a.Errors), "error")
	e.counter(agentLogged, uint64(a.Warnings), "warning")
	e.gauge(policyProblem, number(a.Problem))
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

func (e emitter) sample(s *loader.Sample) {
	e.gauge(enforcing, number(!s.Watching))
	for _, t := range s.Ledger {
		name := t.Interface
		if name == "" {
			name = "(" + t.Of + ")"
		}
		name = valid(name)
		for _, c := range t.Counters {
			e.counter(packets, c.Packets, name, c.Verdict, c.Reason)
			e.counter(bytes, c.Bytes, name, c.Verdict, c.Reason)
		}
		e.counter(unsent, t.Unsent.Packets, name)
		e.counter(merged, t.Merged, name)
	}
	for _, c := range s.Counters {
		switch {
		case c.Reason == maps.FlowsEvicted.String():
			e.counter(evicted, c.Packets)
		case c.Reason == maps.FlowsFull.String():
			e.counter(refused, c.Packets)
		case c.Verdict == maps.Seen && c.Reason != maps.Merged.String():
			e.counter(seen, c.Packets, c.Reason)
		}
	}
	for _, l := range s.BlockLists {
		e.counter(listPackets, l.Packets, l.Name)
		e.gauge(listNetworks, float64(l.Networks4+l.Networks6), l.Name)
		e.time(listSince, l.Since, l.Name)
	}
	for _, r := range s.BanReasons {
		e.counter(banPackets, r.Packets, valid(r.Text))
	}
	for _, i := range s.Interfaces {
		e.gauge(interfaceUp, number(i.Present), valid(i.Name), string(i.Mode))
	}
	e.gauge(flowEntries, float64(s.Entries))
	e.gauge(flowsMax, float64(s.MaxFlows))
	e.time(policySince, s.Since)
	e.gauge(policyRules, float64(len(s.Rules)))
}

// longestRule is how much of a rule a label shows: some have thousands of addresses.
const longestRule = 120 // bytes

// ruleLabel returns the text of a rule, or its beginning and the number that tells it from others.
func ruleLabel(r loader.RuleStatus) string {
	text := valid(r.Rule)
	if len(text) <= longestRule {
		return text
	}
	cut := longestRule
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return fmt.Sprintf("%s... #%d", text[:cut], r.ID)
}

// valid returns a text that others chose, as the label of a metric has to be, and without what would write to a terminal.
func valid(text string) string { return quote.Text(text) }

// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/portcullis-firewall/portcullis/loader"
)

// Rules may be ten thousand. To make a metric of each by the library, and to have it checked, takes three times as long as
// all else of a scrape; so their families are made here, in few allocations, with the labels of the scrape before.

const (
	rulePackets = "portcullis_rule_packets_total"
	ruleBytes   = "portcullis_rule_bytes_total"
)

// ruleLabels are the labels of rules, as long as these are in force.
type ruleLabels struct {
	of     uint64 // their RulesID
	labels [][]*dto.LabelPair
}

func (l *ruleLabels) update(s *loader.Sample) {
	if l.of == s.RulesID && l.of != 0 && len(l.labels) == len(s.Rules) {
		return
	}
	l.of, l.labels = s.RulesID, make([][]*dto.LabelPair, len(s.Rules))
	seen := make(map[string]bool)
	for i, r := range s.Rules {
		text, forward := ruleLabel(r), strconv.FormatBool(r.Meaning.Forward)
		if seen[forward+text] { // equal texts, of rules that mean something else
			text += " #" + strconv.Itoa(int(r.ID))
		}
		seen[forward+text] = true
		l.labels[i] = []*dto.LabelPair{pair("forward", forward), pair("rule", text)} // sorted, as the format wants it
	}
}

func pair(name, value string) *dto.LabelPair { return &dto.LabelPair{Name: &name, Value: &value} }

// family is a metric of all rules.
func (l *ruleLabels) family(name, help string, rules []loader.RuleStatus, value func(loader.RuleStatus) uint64) *dto.MetricFamily {
	n := len(rules)
	metrics, counters, values := make([]dto.Metric, n), make([]dto.Counter, n), make([]float64, n)
	pointers := make([]*dto.Metric, n)
	for i, r := range rules {
		values[i] = float64(value(r))
		counters[i].Value = &values[i]
		metrics[i].Label, metrics[i].Counter = l.labels[i], &counters[i]
		pointers[i] = &metrics[i]
	}
	kind := dto.MetricType_COUNTER
	return &dto.MetricFamily{Name: &name, Help: &help, Type: &kind, Metric: pointers}
}

// gatherer adds the rules to what a registry gathers.
type gatherer struct {
	registry  *prometheus.Registry
	collector *Collector
}

// Gather implements [prometheus.Gatherer].
func (g gatherer) Gather() ([]*dto.MetricFamily, error) {
	families, err := g.registry.Gather()
	families = append(families, g.collector.ruleFamilies()...)
	slices.SortFunc(families, func(a, b *dto.MetricFamily) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return families, err
}

// ruleFamilies returns the metrics of rules, as they were when the collector last read the filter.
func (c *Collector) ruleFamilies() []*dto.MetricFamily {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.before
	if s == nil || len(s.Rules) == 0 {
		return nil
	}
	c.rules.update(s)
	return []*dto.MetricFamily{
		c.rules.family(ruleBytes, "Bytes of the frames of these packets.", s.Rules, func(r loader.RuleStatus) uint64 { return r.Bytes }),
		c.rules.family(rulePackets, "Packets that a rule let in, or through.", s.Rules, func(r loader.RuleStatus) uint64 { return r.Packets }),
	}
}

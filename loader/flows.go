// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

var protocolNames = map[uint8]string{
	unix.IPPROTO_ICMP:   "icmp",
	unix.IPPROTO_ICMPV6: "icmpv6",
	unix.IPPROTO_GRE:    "gre",
	unix.IPPROTO_ESP:    "esp",
	unix.IPPROTO_AH:     "ah",
	unix.IPPROTO_IPIP:   "ipip",
	unix.IPPROTO_IPV6:   "ipv6",
}

func protocolName(number uint8) string {
	if policy.ProtocolIndex(policy.Protocol(number)) >= 0 {
		return policy.Protocol(number).String()
	}
	if name := protocolNames[number]; name != "" {
		return name
	}
	return strconv.Itoa(int(number))
}

// Flows calls each for every live flow, once, by protocol and addresses, until it returns false.
func (f *Filter) Flows(each func(Flow) bool) error {
	now, err := f.now()
	if err != nil {
		return err
	}
	return f.set.SortedFlows(now, func(flow *maps.Flow) bool {
		return each(Flow{
			Protocol: protocolName(flow.Protocol),
			Local:    flow.Local,
			Remote:   flow.Remote,
			State:    flow.State.String(),
			Answered: flow.Answered,
			Assured:  flow.Assured,
			Age:      maps.Duration(int64(flow.Age(now)), f.running.HZ),
			Expires:  maps.Duration(int64(flow.Expires-now), f.running.HZ),
		})
	})
}

// Flush takes every flow out of the table. A connection that is alive comes back with its next packet from this
// host; until then what arrives for it is dropped.
func (f *Filter) Flush() (removed int, err error) {
	result, err := f.runSweep(true)
	return int(result.Removed), err
}

// Sweep takes the dead flows out of the table.
func (f *Filter) Sweep() (live, removed int, err error) {
	result, err := f.runSweep(false)
	return int(result.Live), int(result.Removed), err
}

func (f *Filter) runSweep(flush bool) (result bpf.FirewallSweep, err error) {
	unlock, err := f.change()
	if err != nil {
		return result, err
	}
	defer unlock()
	if flush {
		result.Flush = 1
	}
	t, err := f.tools()
	if err != nil {
		return result, err
	}
	if err := t.runSweep(&result); err != nil {
		return result, err
	}
	return result, f.set.AfterSweep()
}

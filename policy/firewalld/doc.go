// SPDX-License-Identifier: Apache-2.0

// Package firewalld translates the configuration of firewalld into a policy:
// zones and policies with their services, rich rules, ipsets and direct rules,
// as they stand in XML below /etc/firewalld.
//
// It says them in the chains of iptables that firewalld itself would make of
// them, and package iptables plays packets through these.
package firewalld

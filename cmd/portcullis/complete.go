// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/policy"
)

// words completes one of a few words.
func words(choices ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(choices, cobra.ShellCompDirectiveNoFileComp)
}

// left returns the choices that are not on the command line already.
func left(choices, args []string) ([]string, cobra.ShellCompDirective) {
	choices = slices.DeleteFunc(choices, func(c string) bool { return slices.Contains(args, c) })
	return choices, cobra.ShellCompDirectiveNoFileComp
}

// completeInterfaces completes the interfaces of this host.
func (a *app) completeInterfaces(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	found, _ := net.Interfaces()
	var names []string
	for _, i := range found {
		if i.Flags&net.FlagLoopback == 0 {
			names = append(names, i.Name)
		}
	}
	return left(names, args)
}

// running asks the running filter for completions. Without one, or without the right to ask, there are none.
func (a *app) running(cmd *cobra.Command, ask func(*policy.Policy) []string) []string {
	if a.privileged() != nil || a.prepare(cmd, nil) != nil { // a completion runs nothing before itself
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond) // a shell waits for this
	defer cancel()
	f, err := a.firewall.View(ctx)
	if err != nil {
		return nil
	}
	defer f.Close()
	p, err := f.Policy()
	if err != nil {
		return nil
	}
	return ask(p)
}

// completeFiltered completes the interfaces that are filtered.
func (a *app) completeFiltered(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return left(a.running(cmd, func(p *policy.Policy) []string { return p.Interfaces }), args)
}

// completeRules completes the rules in force.
func (a *app) completeRules(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return left(a.running(cmd, func(p *policy.Policy) []string { return policy.Texts(p.Open) }), args)
}

// completeServices completes the services that a rule can name.
func completeServices(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	file, err := os.Open(policy.ServicesFile)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer file.Close()
	var names []string
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if _, err := policy.ParseRule(fields[0]); err == nil {
			names = append(names, fields[0])
		}
	}
	slices.Sort(names)
	return left(slices.Compact(names), args)
}

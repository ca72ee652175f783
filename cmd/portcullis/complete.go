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

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/policy"
)

// words completes one of a few words.
func words(choices ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(choices, cobra.ShellCompDirectiveNoFileComp)
}

// wordsOf is words for what takes a while to list.
func wordsOf(choices func() []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		return words(choices()...)(cmd, args, typed)
	}
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
	return a.askFilter(cmd, func(f firewall.Filter) []string {
		p, err := f.Policy()
		if err != nil {
			return nil
		}
		return ask(p)
	})
}

// askFilter is running for what is not the policy's.
func (a *app) askFilter(cmd *cobra.Command, ask func(firewall.Filter) []string) []string {
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
	return ask(f)
}

// completeFiltered completes the interfaces that are filtered.
func (a *app) completeFiltered(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return left(a.running(cmd, func(p *policy.Policy) []string { return p.Interfaces }), args)
}

// completeRules completes the rules in force.
func (a *app) completeRules(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return left(a.running(cmd, func(p *policy.Policy) []string {
		if forward, _ := cmd.Flags().GetBool(forwardFlag); forward {
			return policy.Texts(p.ForwardRules())
		}
		return policy.Texts(p.InputRules())
	}), args)
}

// completeOpen completes the words of a rule: what it opens, its clauses, and what these take.
func (a *app) completeOpen(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	last := ""
	if len(args) > 0 {
		last = args[len(args)-1]
	}
	const directive = cobra.ShellCompDirectiveNoFileComp
	switch {
	case len(args) == 0:
		return completeServices(cmd, args, word)
	case strings.EqualFold(last, "on"):
		names, _ := a.completeInterfaces(cmd, nil, word)
		return afterComma(word, names), directive
	case slices.Contains([]string{"from", "except", "to"}, strings.ToLower(last)):
		return afterComma(word, a.listNames(cmd)), directive
	case strings.EqualFold(last, "limit"):
		return []string{"6/minute", "10/second", "100/second", "20/hour"}, directive
	case strings.EqualFold(last, "burst"):
		return []string{"5", "10", "50"}, directive
	}
	services, _ := completeServices(cmd, args, word)
	return append(policy.ClauseWords(args), services...), directive
}

// afterComma completes the last entry of a list, with those that are not in it yet.
func afterComma(word string, choices []string) []string {
	before := word[:strings.LastIndexByte(word, ',')+1]
	have := strings.Split(before, ",")
	var out []string
	for _, choice := range choices {
		if !slices.Contains(have, choice) {
			out = append(out, before+choice)
		}
	}
	return out
}

// listNames returns the lists of the policy file, as rules name them.
func (a *app) listNames(cmd *cobra.Command) []string {
	if a.prepare(cmd, nil) != nil { // a completion runs nothing before itself
		return nil
	}
	wanted, err := a.firewall.WantedByFile()
	if err != nil {
		return nil
	}
	var names []string
	for _, l := range wanted.Policy.Lists {
		names = append(names, "@"+l.Name)
	}
	return names
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
	names = append(names, policy.ProtocolNames()...)
	slices.Sort(names)
	return left(slices.Compact(names), args)
}

// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
)

const (
	scheme = "etcd://"
	port   = "2379"
	// folder is what keys begin with where the URL names nothing else: a cluster may serve others, too.
	folder = "portcullis"
)

// place is what a URL says.
type place struct {
	endpoints []string // HOST:PORT
	prefix    string   // of all keys
	local     bool     // nothing but loopback
}

func (p place) String() string { return strings.Join(p.endpoints, ",") }

// parse returns what a URL says: etcd://HOST[:PORT][,HOST[:PORT]...][/FOLDER].
func parse(url string) (place, error) {
	fail := func(format string, args ...any) (place, error) {
		return place{}, fmt.Errorf("%q: %s", url, fmt.Sprintf(format, args...))
	}
	rest, found := strings.CutPrefix(url, scheme)
	if !found {
		return fail("write etcd://HOST:2379, with more members after commas")
	}
	if strings.ContainsAny(rest, "?#") {
		return fail("a URL of etcd has members and a folder, and no more")
	}
	if strings.Contains(rest, "@") {
		// Not quoted: what stands before it may be a password.
		return place{}, errors.New("etcd://: there are no names and passwords in a URL of etcd: its user is the common name of the certificate")
	}
	hosts, path, _ := strings.Cut(rest, "/")
	path = strings.TrimSuffix(path, "/")
	if path == "" {
		path = folder
	}
	for part := range strings.SplitSeq(path, "/") {
		if !store.IsName(part) {
			return fail("%q cannot be a folder in etcd: use lower-case letters, digits, dots and hyphens", path)
		}
	}
	p := place{prefix: "/" + path + "/", local: true}
	for member := range strings.SplitSeq(hosts, ",") {
		host, number, err := splitMember(member)
		if err != nil {
			return fail("%v", err)
		}
		endpoint := net.JoinHostPort(host, number)
		if slices.Contains(p.endpoints, endpoint) {
			return fail("%s is named twice", endpoint)
		}
		p.endpoints = append(p.endpoints, endpoint)
		p.local = p.local && isLoopback(host)
	}
	return p, nil
}

// splitMember returns host and port of a member.
func splitMember(member string) (host, number string, err error) {
	host, number = member, port
	if addr, err := netip.ParseAddr(strings.Trim(member, "[]")); err == nil && (addr.Is4() || strings.HasPrefix(member, "[")) {
		host = addr.String()
	} else if strings.Contains(member, ":") {
		if host, number, err = net.SplitHostPort(member); err != nil {
			return "", "", fmt.Errorf("%q is no member: write HOST:2379, or [ADDRESS]:2379 for IPv6", member)
		}
	}
	if n, err := strconv.ParseUint(number, 10, 16); err != nil || n == 0 {
		return "", "", fmt.Errorf("%q is no port", number)
	}
	if _, err := netip.ParseAddr(host); err != nil && !isHostName(host) {
		return "", "", fmt.Errorf("%q is no host", host)
	}
	return host, number, nil
}

func isHostName(name string) bool {
	for _, r := range name {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '-' && r != '_' {
			return false
		}
	}
	return name != "" && len(name) <= 253
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback() || strings.EqualFold(host, "localhost")
}

// identify returns the common name of the user who asks the members of a place, or why it does not do to ask them so.
func identify(p place, o store.Options) (name string, err error) {
	if (o.Certificate == "") != (o.Key == "") {
		return "", errors.New("etcd: a certificate and its key go together: name both, or neither")
	}
	if o.Certificate == "" && !p.local {
		return "", fmt.Errorf("etcd without TLS is refused but on loopback: %s: name ca, certificate and private key (in fleet.yaml: ca, certificate, private), by which hosts and etcd know each other", p)
	}
	if !secure(o) {
		return "", nil
	}
	config, err := store.ClientTLS(o, "")
	if err != nil || o.Certificate == "" {
		return "", err
	}
	certificate, err := x509.ParseCertificate(config.Certificates[0].Certificate[0])
	if err != nil {
		return "", fmt.Errorf("%s: %w", o.Certificate, err)
	}
	return certificate.Subject.CommonName, nil
}

// secure reports whether the members are asked over TLS.
func secure(o store.Options) bool { return o.CA != "" || o.Certificate != "" }

// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
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

// identity is how a store shows who it is.
type identity struct {
	tls  *tls.Config // nil: it does not
	name string      // common name of the certificate
}

// identify returns who asks the members of a place.
func identify(p place, o store.Options) (identity, error) {
	if (o.Certificate == "") != (o.Key == "") {
		return identity{}, errors.New("etcd: a certificate and its key go together: name both, or neither")
	}
	if o.Certificate == "" {
		switch {
		case !p.local:
			return identity{}, fmt.Errorf("etcd without TLS is refused but on loopback: %s: name ca, certificate and private key (in fleet.yaml: ca, certificate, private), by which hosts and etcd know each other",
				p)
		case o.CA == "":
			return identity{}, nil
		}
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	id := identity{tls: config}
	if o.CA != "" {
		text, err := os.ReadFile(o.CA)
		if err != nil {
			return identity{}, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return identity{}, fmt.Errorf("%s: no certificate in PEM form in it", o.CA)
		}
	}
	if o.Certificate == "" {
		return id, nil
	}
	certificate, err := load(o.Certificate, o.Key)
	if err != nil {
		return identity{}, err
	}
	id.name = certificate.Leaf.Subject.CommonName
	// Read for each connection: certificates that live for a day are replaced under a process that runs for a year.
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load(o.Certificate, o.Key) }
	return id, nil
}

// load reads a certificate and its key, which nobody else may read.
func load(certificate, key string) (*tls.Certificate, error) {
	info, err := os.Stat(key)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s: others may read this private key (mode %04o): chmod 600 %s, and have a new one if they are not to be trusted", key, mode, key)
	}
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return nil, fmt.Errorf("%s, %s: %w", certificate, key, err)
	}
	if pair.Leaf == nil {
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return nil, fmt.Errorf("%s: %w", certificate, err)
		}
	}
	return &pair, nil
}

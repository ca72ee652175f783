// SPDX-License-Identifier: Apache-2.0

package store

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"
)

// ClientTLS returns how a client speaks TLS to a server, by the files of the options. A certificate that is out of date by this host's
// clock is taken all the same if everything else about it is right: the clock may be wrong by years, before there is a
// network to set it by, and what a store says is not believed without a signature.
func ClientTLS(o Options, server string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: server}
	if o.CA != "" {
		text, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s: there is no certificate in it", o.CA)
		}
	}
	if o.Certificate != "" || o.Key != "" {
		if err := checkPrivate(o.Key); err != nil {
			return nil, err
		}
		pair, err := tls.LoadX509KeyPair(o.Certificate, o.Key)
		if err != nil {
			return nil, fmt.Errorf("the certificate %s with its key %s: %w", o.Certificate, o.Key, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	config.InsecureSkipVerify = true // as VerifyConnection does it
	config.VerifyConnection = func(c tls.ConnectionState) error { return verify(c, server, config.RootCAs, time.Now()) }
	return config, nil
}

// verify is what crypto/tls does, but for the time. The state of a connection has no name for a server that is called by
// its address.
func verify(c tls.ConnectionState, server string, roots *x509.CertPool, now time.Time) error {
	if len(c.PeerCertificates) == 0 {
		return errors.New("the server shows no certificate")
	}
	certificate := c.PeerCertificates[0]
	o := x509.VerifyOptions{DNSName: server, Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: now}
	for _, between := range c.PeerCertificates[1:] {
		o.Intermediates.AddCert(between)
	}
	_, err := certificate.Verify(o)
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		o.CurrentTime = certificate.NotBefore.Add(certificate.NotAfter.Sub(certificate.NotBefore) / 2)
		_, err = certificate.Verify(o)
	}
	return err
}

// checkPrivate refuses the file of a key that others may read.
func checkPrivate(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Mode()&0o077 != 0 {
		return fmt.Errorf("%s can be read by others (mode %04o): run \"chmod 600 %s\"", path, info.Mode().Perm(), path)
	}
	return nil
}

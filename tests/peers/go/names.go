package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sort"
	"time"
)

// resolve prints the addresses or SRV records of a name, in order; "not found" where there are none.
func resolve(server, kind, name string) error {
	resolver := &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, network, server)
		},
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var lines []string
	var err error
	switch kind {
	case "ip":
		lines, err = resolver.LookupHost(ctx, name)
	case "srv":
		var records []*net.SRV
		_, records, err = resolver.LookupSRV(ctx, "", "", name)
		for _, srv := range records {
			lines = append(lines, fmt.Sprintf("%d %d %d %s", srv.Priority, srv.Weight, srv.Port, srv.Target))
		}
	default:
		return fmt.Errorf("unknown kind %q", kind)
	}
	var failure *net.DNSError
	if errors.As(err, &failure) && failure.IsNotFound {
		fmt.Println("not found")
		return nil
	}
	sort.Strings(lines)
	for _, line := range lines {
		fmt.Println(line)
	}
	return err
}

package fetch

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	"github.com/oschwald/maxminddb-golang/v2"
)

// Convert rewrites a flat country database, whose records are
// {"country_code": "DE"}, in the shape of GeoIP2-Country, which is what
// geoip2-golang and every tool around it read. from and to are file paths.
func Convert(from, to string) error {
	flat, err := maxminddb.Open(from)
	if err != nil {
		return fmt.Errorf("open flat country database: %w", err)
	}
	defer flat.Close()
	tree, err := mmdbwriter.New(mmdbwriter.Options{
		DatabaseType:            "GeoIP2-Country",
		Description:             map[string]string{"en": "Countries of IP addresses, converted from " + flat.Metadata.DatabaseType},
		BuildEpoch:              int64(flat.Metadata.BuildEpoch),
		IncludeReservedNetworks: true, // geo refuses reserved ranges itself, before it looks
		RecordSize:              24,
	})
	if err != nil {
		return fmt.Errorf("make country database: %w", err)
	}
	countries := map[string]mmdbtype.Map{}
	for network := range flat.Networks() {
		var record struct {
			Code string `maxminddb:"country_code"`
		}
		if err := network.Decode(&record); err != nil {
			return fmt.Errorf("read flat country database: %w", err)
		}
		if len(record.Code) != 2 {
			continue
		}
		country, ok := countries[record.Code]
		if !ok {
			country = mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String(record.Code)}}
			countries[record.Code] = country
		}
		// 6to4 and Teredo networks answer as the IPv4 networks inside them.
		var aliased *mmdbwriter.AliasedNetworkError
		if err := tree.Insert(ipNet(network.Prefix()), country); err != nil && !errors.As(err, &aliased) {
			return fmt.Errorf("convert network: %w", err)
		}
	}
	if len(countries) == 0 {
		return errors.New("the country database has no country_code in any record")
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(out)
	if _, err := tree.WriteTo(w); err != nil {
		out.Close()
		return fmt.Errorf("write country database: %w", err)
	}
	if err := w.Flush(); err != nil {
		out.Close()
		return fmt.Errorf("write country database: %w", err)
	}
	return out.Close()
}

// ipNet is the older form of a prefix, which mmdbwriter takes.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

package main

import (
	"fmt"
	"io/fs"
	"os"

	"usher.example/brand"
	"usher.example/pages"
	"usher.example/pages/look"
	"usher.example/projections"
	"usher.example/server"
)

// registerPages adds the pages to a server, as the settings have them look.
func (d *deployment) registerPages(to *server.Server, l *look.Look, exports *server.Exports) error {
	c := d.config
	if err := pages.Register(to, pages.Config{Look: l, PublicURL: c.PublicURL, Activity: projections.Activity{DB: d.store}, Exports: exports}); err != nil {
		return fmt.Errorf("make the pages, with the templates of PAGES_DIR: %w", err)
	}
	return nil
}

func (c *config) look() (*look.Look, error) {
	b, err := c.brand()
	if err != nil {
		return nil, err
	}
	return look.New(look.Config{Brand: b, Replaced: folder(c.PagesDir)})
}

// brand is in whose name people are addressed.
func (c *config) brand() (b brand.Brand, err error) {
	b = brand.Brand{Name: c.BrandName, Colour: c.BrandColor}
	if c.BrandLogo != "" {
		if b.Logo, err = os.ReadFile(c.BrandLogo); err != nil {
			return b, fmt.Errorf("read BRAND_LOGO: %w", err)
		}
	}
	return b, nil
}

// folder is a folder of templates that stand in for ours; nil for none.
func folder(path string) fs.FS {
	if path == "" {
		return nil
	}
	return os.DirFS(path)
}

func validColour(text string) bool {
	_, err := brand.ParseColour(text)
	return err == nil
}

func validLogo(path string) bool {
	info, err := os.Stat(path)
	if err != nil || info.Size() > brand.MaxLogo {
		return false
	}
	logo, err := os.ReadFile(path)
	if err != nil || len(logo) == 0 {
		return false
	}
	_, err = brand.Brand{Logo: logo}.Picture()
	return err == nil
}

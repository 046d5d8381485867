package main

import (
	"fmt"
	"io/fs"
	"os"

	"usher.example/pages"
	"usher.example/pages/look"
	"usher.example/server"
)

// registerPages adds the pages to a server, as the settings have them look.
func (c *config) registerPages(to *server.Server) error {
	l, err := c.look()
	if err != nil {
		return err
	}
	if err := pages.Register(to, pages.Config{Look: l, PublicURL: c.PublicURL}); err != nil {
		return fmt.Errorf("make the pages, with the templates of PAGES_DIR: %w", err)
	}
	return nil
}

func (c *config) look() (*look.Look, error) {
	brand := look.Brand{Name: c.BrandName, Colour: c.BrandColor}
	if c.BrandLogo != "" {
		logo, err := os.ReadFile(c.BrandLogo)
		if err != nil {
			return nil, fmt.Errorf("read BRAND_LOGO: %w", err)
		}
		brand.Logo = logo
	}
	var replaced fs.FS
	if c.PagesDir != "" {
		replaced = os.DirFS(c.PagesDir)
	}
	return look.New(look.Config{Brand: brand, Replaced: replaced})
}

func validColour(text string) bool {
	_, err := look.ParseColour(text)
	return err == nil
}

func validLogo(path string) bool {
	info, err := os.Stat(path)
	if err != nil || info.Size() > look.MaxLogo {
		return false
	}
	logo, err := os.ReadFile(path)
	if err != nil || len(logo) == 0 {
		return false
	}
	_, err = look.New(look.Config{Brand: look.Brand{Logo: logo}})
	return err == nil
}

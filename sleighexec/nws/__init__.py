"""The import paths of 2008: `sleighexec.nws.client` and `sleighexec.nws.sleigh`."""

"""The whole hub, as its users run it: `hub up` on the acme home, with small HTTP servers as the outside systems."""

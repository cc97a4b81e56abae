#!/bin/sh
# Install gcc and libc's headers on Debian: Triton compiles its launcher where it runs. The Dockerfile runs it
# as root. Does nothing if the base can compile C already, so a base with gcc needs no mirror of Debian.
#
# Optional build secrets: apt_sources is a sources.list that replaces the base's own, and pip_ca is a bundle of
# certificates for a mirror with https.
set -eu

can_compile() {
    printf '#include <%s>\n' errno.h limits.h stdio.h stdlib.h | gcc -fsyntax-only -x c -
}

if can_compile 2> /dev/null; then
    exit
fi

# apt reads only the lower-case names.
[ -z "${HTTP_PROXY:-}" ] || export http_proxy="${http_proxy:-$HTTP_PROXY}"
[ -z "${HTTPS_PROXY:-}" ] || export https_proxy="${https_proxy:-$HTTPS_PROXY}"
[ -z "${NO_PROXY:-}" ] || export no_proxy="${no_proxy:-$NO_PROXY}"
[ ! -s /run/secrets/apt_sources ] || set -- -o Dir::Etc::SourceList=/run/secrets/apt_sources -o Dir::Etc::SourceParts=-
[ ! -s /run/secrets/pip_ca ] || set -- "$@" -o Acquire::https::CAInfo=/run/secrets/pip_ca

# No versions: Debian keeps only the newest build, so a pinned one soon cannot be installed.
apt-get "$@" update
apt-get "$@" install --yes --no-install-recommends gcc libc6-dev
rm -rf /var/lib/apt/lists/*

# libc6-dev depends on all headers of the kernel's interface. Scanners list the kernel's vulnerabilities for
# that package, hundreds that no header can have. C programs need five of its files (errno.h and limits.h
# include them): a package of only these replaces it, so that dpkg and apt still find each dependency.
package=$(mktemp -d)
mkdir "$package/DEBIAN"
tar --create --directory / \
    usr/include/linux/errno.h usr/include/linux/limits.h \
    usr/include/asm-generic/errno.h usr/include/asm-generic/errno-base.h \
    usr/include/x86_64-linux-gnu/asm/errno.h \
    | tar --extract --directory "$package"
version=$(dpkg-query --show --showformat '${Version}' linux-libc-dev)
cat > "$package/DEBIAN/control" << EOF
Package: recap-errno-headers
Version: $version
Architecture: all
Maintainer: recap
Provides: linux-libc-dev
Conflicts: linux-libc-dev
Replaces: linux-libc-dev
Description: five headers of linux-libc-dev $version
 Install linux-libc-dev itself to have all of them again.
EOF
dpkg-deb --build "$package" "$package.deb"
dpkg --install "$package.deb"
rm -rf "$package" "$package.deb"
can_compile
apt-get check

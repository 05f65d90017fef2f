# Sourced by the other scripts, from the root of the checkout: what they say, what they find, and what they install.
# shellcheck shell=bash disable=SC2034 # the names are used where this is sourced

target=${CARGO_TARGET_DIR:-target}
no_install=false

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# The comment at the head of a script is its help.
show_help() { sed -n '2,/^$/s/^# \{0,1\}//p' "scripts/${0##*/}"; }

# Whether missing tools may be installed here: Debian or Ubuntu, as root, and not refused by --no-install.
can_install() { ! $no_install && [ "$(id -u)" = 0 ] && have apt-get; }

# install_packages WHAT PACKAGE...: says what it installs, then does.
install_packages() {
    say "installing $1 from the distribution's packages: ${*:2}"
    if [ -z "${packages_listed:-}" ]; then
        apt-get update -qq >&2 || return 1
        packages_listed=true
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${@:2}" >&2
}

# Whether file systems of the tests' own can be made on loop devices, filled up, and cut off from their power. It tries:
# root in a container may not.
can_mount() {
    PATH=$PATH:/usr/sbin:/sbin
    [ "$(id -u)" = 0 ] && have mount && have mkfs.ext4 && have python3 || return 1
    local probe mounted=false
    probe=$(mktemp -d)
    mkdir "$probe/mounted"
    truncate --size 8M "$probe/image"
    mkfs.ext4 -q "$probe/image" && mount -o loop "$probe/image" "$probe/mounted" && mounted=true
    ! $mounted || umount "$probe/mounted"
    rm -r "$probe"
    $mounted
}

# Without Rust and a C compiler nothing can be built.
need_rust() {
    have cargo || die "cargo is not on the PATH. Install Rust 1.90 or later: https://rustup.rs"
    have cc && return
    if can_install; then
        install_packages "a C compiler" gcc libc6-dev || die "the C compiler could not be installed"
    else
        die "no C compiler (cc) on the PATH. On Debian and Ubuntu: apt-get install gcc libc6-dev"
    fi
}

# Without --target the flag would reach procedural macros too, which cannot be static.
static_target=x86_64-unknown-linux-gnu
static_binary=$target/$static_target/release/poste
static_build() {
    RUSTFLAGS="-C target-feature=+crt-static" \
        cargo build --release --locked --target "$static_target" -p poste
}

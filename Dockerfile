# One small image for every service of Poste: a static binary and nothing else. `scripts/images` makes the same image
# from a binary that the host's cargo built; it reads the last stage of this file, so keep that one to COPY from /out.

FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /src
COPY . .
# Static glibc, so that the image needs no libraries and still resolves names; it needs an explicit --target.
ENV RUSTFLAGS="-C target-feature=+crt-static"
RUN target="$(rustc --print host-tuple)" \
    && cargo build --release --locked --target "$target" -p poste \
    && mkdir -p /out/empty \
    && cp "target/$target/release/poste" /out/poste \
    && strip --strip-debug /out/poste

FROM scratch
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Poste" \
      org.opencontainers.image.description="Waku v1 and Whisper gateway, mailserver archive, and push notification server" \
      org.opencontainers.image.licenses="Apache-2.0 OR MIT" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /out/poste /poste
# A fresh named volume takes the owner of the directory that it is mounted on.
COPY --from=build --chown=65532:65532 /out/empty /var/lib/poste
USER 65532:65532
EXPOSE 30303/tcp
STOPSIGNAL SIGTERM
# Whether it lives, not whether it is ready: whoever acts on it restarts the container.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["/poste", "health", "--live"]
ENTRYPOINT ["/poste"]
CMD ["up", "--data", "/var/lib/poste"]

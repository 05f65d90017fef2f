use std::fs;

use serde::Deserialize;

use super::*;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Archive {
    store: String,
    grpc_listen: std::net::SocketAddr,
    max_segment: ByteSize,
    group_delay: HumanDuration,
    insecure: bool,
    workers: u32,
    ratio: f64,
    spaces: Vec<String>,
    password: Secret,
    label: Option<String>,
}

impl Default for Archive {
    fn default() -> Self {
        Self {
            store: "local:///var/lib/poste/archive".into(),
            grpc_listen: "127.0.0.1:7200".parse().unwrap(),
            max_segment: ByteSize::mebibytes(256),
            group_delay: HumanDuration::from_secs(2),
            insecure: false,
            workers: 2,
            ratio: 0.5,
            spaces: vec!["waku1".into()],
            password: Secret::new("public"),
            label: None,
        }
    }
}

impl Section for Archive {
    const NAME: &'static str = "archive";
    const KEYS: &'static [Key] = &[
        Key::new("store", "where the store lies"),
        Key::listener("grpc_listen", "address of the gRPC"),
        Key::new("max_segment", "size of a segment"),
        Key::new("group_delay", "how long a group waits"),
        Key::new("insecure", "allow plaintext beyond loopback"),
        Key::new("workers", "threads"),
        Key::new("ratio", "a number"),
        Key::new("spaces", "what is stored"),
        Key::secret("password", "the password"),
        Key::new("label", "free text"),
    ];

    fn validate(&self) -> Result<(), String> {
        if self.workers == 0 {
            return Err("workers is 0: write 1 or more".into());
        }
        Ok(())
    }
}

fn schema() -> Schema {
    Schema::new().with::<Archive>().with::<crate::shutdown::DrainConfig>()
}

fn name(key: &'static str) -> Name {
    Name { section: "archive", key }
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("poste.toml");
    fs::write(&path, text).unwrap();
    (dir, path)
}

fn origin_of(config: &Config, name: Name) -> Origin {
    config.show().find(|shown| shown.0 == name).unwrap().2
}

#[test]
fn the_sections_of_this_crate_are_sound() {
    schema().with::<crate::health::HttpConfig>().with::<crate::logging::LogConfig>().verify().unwrap();
    assert_eq!(schema().load(&Sources::default()).unwrap().section::<Archive>().unwrap(), Archive::default());
}

#[test]
fn each_layer_beats_the_one_below() {
    let (_dir, path) = file("[archive]\nstore = \"file\"");
    let mut sources = Sources::default();
    let expect = |sources: &Sources, store: &str, origin: Origin| {
        let config = schema().load(sources).unwrap();
        assert_eq!(config.section::<Archive>().unwrap().store, store);
        assert_eq!(origin_of(&config, name("store")), origin);
    };
    expect(&sources, "local:///var/lib/poste/archive", Origin::Default);
    sources.presets = vec![("--data", name("store"), Value::String("preset".into()))];
    expect(&sources, "preset", Origin::Preset("--data"));
    sources.file = Some(path.clone());
    expect(&sources, "file", Origin::File(path));
    sources.environment = variables(&[("POSTE_ARCHIVE__STORE", "environment"), ("HOME", "/")]);
    expect(&sources, "environment", Origin::Environment("POSTE_ARCHIVE__STORE".into()));
    sources.flags = vec![(name("store"), "flag".into())];
    expect(&sources, "flag", Origin::Flag("--archive-store".into()));
}

#[test]
fn text_becomes_the_type_of_its_setting() {
    let environment = variables(&[
        ("POSTE_ARCHIVE__GRPC_LISTEN", "127.0.0.1:0"),
        ("POSTE_ARCHIVE__MAX_SEGMENT", "64MiB"),
        ("POSTE_ARCHIVE__GROUP_DELAY", "30s"),
        ("POSTE_ARCHIVE__INSECURE", "true"),
        ("POSTE_ARCHIVE__WORKERS", "7"),
        ("POSTE_ARCHIVE__RATIO", "3"),
        ("POSTE_ARCHIVE__SPACES", "waku1, waku2"),
        ("POSTE_ARCHIVE__PASSWORD", "0123"),
        ("POSTE_ARCHIVE__LABEL", "7"),
    ]);
    let config = schema().load(&Sources { environment, ..Sources::default() }).unwrap();
    let expected = Archive {
        grpc_listen: "127.0.0.1:0".parse().unwrap(),
        max_segment: ByteSize::mebibytes(64),
        group_delay: HumanDuration::from_secs(30),
        insecure: true,
        workers: 7,
        ratio: 3.0,
        spaces: vec!["waku1".into(), "waku2".into()],
        password: Secret::new("0123"),
        label: Some("7".into()),
        ..Archive::default()
    };
    assert_eq!(config.section::<Archive>().unwrap(), expected);
    config.check().unwrap();
}

#[test]
fn unknown_names_are_told_the_nearest() {
    for (text, unknown, nearest) in [
        ("[archive]\nstroe = 1", "setting archive.stroe", "archive.store"),
        ("[archiv]\nstore = 1", "section [archiv]", "[archive]"),
        ("archive_store = 1", "section [archive_store]", "[archive]"),
    ] {
        let (_dir, path) = file(text);
        let error = schema().load(&Sources { file: Some(path.clone()), ..Sources::default() }).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
        assert!(error.contains(unknown) && error.ends_with(nearest), "{error}");
    }
    for (variable, nearest) in [
        ("POSTE_ARCHIVE_STORE", "POSTE_ARCHIVE__STORE"),
        ("POSTE_ARCHIVE__GRPC_LISTN", "POSTE_ARCHIVE__GRPC_LISTEN"),
        ("POSTE_ARCHIVE__STORE_FILE", "POSTE_ARCHIVE__STORE"),
        ("POSTE_DRAIN__TIME", "POSTE_DRAIN__TIMEOUT"),
    ] {
        let environment = variables(&[(variable, "x")]);
        let error = schema().load(&Sources { environment, ..Sources::default() }).unwrap_err().to_string();
        assert!(error.contains(variable) && error.ends_with(nearest), "{error}");
    }
}

#[test]
fn what_others_put_into_the_environment_is_passed_over() {
    let environment = variables(&[
        ("POSTE_CONFIG", "x"),
        ("POSTE_VECTORS", "x"),
        ("POSTE_IMAGE", "poste:dev"),
        ("POSTE_RLPX_BIND", "0.0.0.0"),
        ("POSTE_RLPX_PORT", "30303"),
        ("POSTE_BIN", "x"),
        ("POSTE_SKIP", "x"),
        ("POSTE_ARCHIVE_SERVICE_HOST", "10.0.0.1"),
        ("POSTE_ARCHIVE_SERVICE_PORT_GRPC", "7200"),
        ("POSTE_ARCHIVE_PORT", "tcp://10.0.0.1:7200"),
        ("POSTE_ARCHIVE_PORT_7200_TCP_ADDR", "10.0.0.1"),
    ]);
    schema().load(&Sources { environment, ..Sources::default() }).unwrap();
}

#[test]
fn a_value_that_does_not_fit_is_named_with_its_origin() {
    let (_dir, path) = file("[archive]\nworkers = \"many\"\n");
    let config = schema().load(&Sources { file: Some(path.clone()), ..Sources::default() }).unwrap();
    let error = config.section::<Archive>().unwrap_err().to_string();
    assert!(error.starts_with(&format!("archive.workers (from {}): ", path.display())), "{error}");
    assert_eq!(config.check().unwrap_err().to_string(), error);

    for (key, text, part) in [
        ("workers", "x", "archive.workers (from --archive-workers): expected a whole number"),
        ("insecure", "yes", "expected true or false"),
        ("max_segment", "64Mb", "is not a size"),
        ("group_delay", "30", "is not a duration"),
        ("grpc_listen", "localhost", "socket address"),
    ] {
        let flags = vec![(name(key), text.to_owned())];
        let outcome =
            schema().load(&Sources { flags, ..Sources::default() }).and_then(|config| config.check());
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }

    let (_dir, path) = file("[archive\n");
    let error = schema().load(&Sources { file: Some(path), ..Sources::default() }).unwrap_err().to_string();
    assert!(error.contains("line 1"), "{error}");
}

#[test]
fn values_that_a_service_cannot_run_with_are_refused_by_check_and_section() {
    let load = |workers: &str| {
        let flags = vec![(name("workers"), workers.to_owned())];
        schema().load(&Sources { flags, ..Sources::default() }).unwrap()
    };
    load("1").check().unwrap();
    for error in [load("0").check().unwrap_err(), load("0").section::<Archive>().unwrap_err()] {
        assert!(matches!(error, ConfigError::Section { .. }), "{error}");
        assert_eq!(error.to_string(), "[archive]: workers is 0: write 1 or more");
    }
}

#[test]
fn secrets_show_neither_in_syntax_errors_nor_in_debug() {
    for text in [
        "[archive]\n  password = \"hunter2\n",
        "[archive]\n  password = hunter2\n",
        "[archive]\n  password = \"hunter2\" \"x\"\n",
    ] {
        let (_dir, path) = file(text);
        let error =
            schema().load(&Sources { file: Some(path), ..Sources::default() }).unwrap_err().to_string();
        assert!(error.contains("line 2, column ") && !error.contains("hunter2"), "{error}");
    }
    let sources = Sources {
        presets: vec![("--data", name("store"), Value::String("hunter2".into()))],
        environment: variables(&[("POSTE_ARCHIVE__PASSWORD", "hunter2"), ("OTHER", "hunter2")]),
        flags: vec![(name("label"), "hunter2".into())],
        ..Sources::default()
    };
    let shown = format!("{sources:?} {:?}", schema().load(&sources).unwrap());
    assert!(!shown.contains("hunter2"), "{shown}");
    for told in ["archive.store (--data)", "POSTE_ARCHIVE__PASSWORD", "--archive-label", "archive.workers"] {
        assert!(shown.contains(told), "{told} in {shown}");
    }
}

#[test]
fn secrets_come_from_files_and_are_masked() {
    let (_dir, path) = file("hunter2\n");
    let path = path.to_str().unwrap();
    let environment = variables(&[("POSTE_ARCHIVE__PASSWORD_FILE", path)]);
    let config = schema().load(&Sources { environment, ..Sources::default() }).unwrap();
    assert_eq!(config.section::<Archive>().unwrap().password.expose(), "hunter2");
    let (_, shown, origin) = config.show().find(|shown| shown.0 == name("password")).unwrap();
    assert_eq!(shown.as_deref(), Some("\"********\""));
    assert_eq!(origin, Origin::Environment("POSTE_ARCHIVE__PASSWORD_FILE".into()));
    assert!(config.show().all(|(_, value, _)| !value.unwrap_or_default().contains("hunter2")));

    let environment = variables(&[("POSTE_ARCHIVE__PASSWORD", "x"), ("POSTE_ARCHIVE__PASSWORD_FILE", path)]);
    let error = schema().load(&Sources { environment, ..Sources::default() }).unwrap_err();
    assert!(matches!(error, ConfigError::Twice { .. }), "{error}");

    let environment = variables(&[("POSTE_ARCHIVE__PASSWORD_FILE", "/no/such/file")]);
    let error = schema().load(&Sources { environment, ..Sources::default() }).unwrap_err().to_string();
    assert!(error.contains("/no/such/file") && error.contains("POSTE_ARCHIVE__PASSWORD_FILE"), "{error}");

    // A secret of the wrong type must not be quoted by the error.
    let (_dir, path) = file("[archive]\npassword = 31337\n");
    let config = schema().load(&Sources { file: Some(path), ..Sources::default() }).unwrap();
    let error = config.check().unwrap_err().to_string();
    assert!(error.contains("archive.password") && !error.contains("31337"), "{error}");
}

#[test]
fn ephemeral_ports_spare_what_a_flag_names() {
    let environment = variables(&[("POSTE_ARCHIVE__GRPC_LISTEN", "0.0.0.0:7200")]);
    let mut sources = Sources { environment, ephemeral_ports: true, ..Sources::default() };
    let listen = |sources: &Sources| {
        schema().load(sources).unwrap().section::<Archive>().unwrap().grpc_listen.to_string()
    };
    assert_eq!(listen(&sources), "0.0.0.0:0");
    sources.flags = vec![(name("grpc_listen"), "127.0.0.1:7777".into())];
    assert_eq!(listen(&sources), "127.0.0.1:7777");
}

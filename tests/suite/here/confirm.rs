//! An edit on trial: `apply --confirm`, `confirm`, and what becomes of it when nobody says anything.
//!
//! The judge is `ip`: a VIP that the edit adds stands or does not.

use super::held_up::Stopped;
use super::netns::{PATIENCE, VIP, file, places, wire};
use crate::support::{Host, LVS_NOTIFY, wait_for};

const ADDED: &str = "192.0.2.101";

/// A MASTER whose file was applied, and its neighbour; with an edit that nobody has applied.
fn edited() -> (Host, Host, String) {
    let (director, neighbour) = wire("eth0");
    director.desire("VI_1", &file("eth0", ""));
    director.lvs_ok("master");
    let edit = file("eth0", "").replace(&format!("[{VIP}, "), &format!("[{VIP}, {ADDED}, "));
    director.desire("VI_1", &edit);
    (director, neighbour, edit)
}

/// Whether some process waits for the end of a trial.
fn waits() -> bool {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let line = |process: std::fs::DirEntry| std::fs::read(process.path().join("cmdline")).unwrap_or_default();
    processes.map(line).any(|line| line.starts_with(b"lvs-notify-trial\0"))
}

fn kill_waiting(host: &Host) {
    host.sh("for p in /proc/[0-9]*; do grep -qs ^lvs-notify-trial $p/cmdline && kill -KILL ${p#/proc/}; done; true");
}

fn stands(director: &Host) -> bool {
    places(director, VIP).len() == 2 && places(director, ADDED) == ["eth0 32", "lo 32"]
}

fn is_taken_back(director: &Host) -> bool {
    places(director, VIP).len() == 2 && places(director, ADDED).is_empty()
}

#[test]
#[ignore = "needs root: run tests/run"]
fn an_edit_is_taken_back_unless_it_is_confirmed() {
    let (director, _neighbour, edit) = edited();
    let told = director.lvs_ok("apply --confirm 3s");
    assert!(told.contains("the edit is taken back in 3 s, unless: lvs-notify confirm VI_1\n"), "{told}");
    assert!(stands(&director));
    let status = director.lvs("status");
    assert_eq!(status.status, 0, "{}", status.all());
    let (verdict, rest) = status.stdout.split_once('\n').unwrap();
    assert!(verdict.ends_with(", in sync, the edit is NOT CONFIRMED"), "{verdict}");
    assert!(rest.contains("The edit of the file is taken back in "), "{rest}");
    wait_for("the edit is taken back", PATIENCE, || is_taken_back(&director));

    assert_eq!(director.read("/etc/lvs-notify/VI_1.yaml"), edit, "the file is its owner's");
    wait_for("its process ends", PATIENCE, || !waits());
    for command in ["status", "apply", "master", "plan"] {
        let ran = director.lvs(command);
        assert_eq!(ran.status, 4, "{command}: {}", ran.all());
        assert!(ran.all().contains("nobody has confirmed this edit in time"), "{command}: {}", ran.all());
        assert!(is_taken_back(&director), "{command}");
    }
    let late = director.lvs("confirm");
    assert_eq!(late.status, 1);
    assert!(late.all().contains("there is nothing to confirm"), "{}", late.all());

    director.lvs_ok("apply --confirm 60s");
    assert!(stands(&director));
    assert_ne!(director.read("/var/lib/lvs-notify/VI_1.yaml"), edit, "not good yet");
    director.lvs_ok("confirm");
    assert_eq!(director.read("/var/lib/lvs-notify/VI_1.yaml"), edit, "good");
    let status = director.lvs("status");
    assert_eq!(status.status, 0);
    assert!(status.stdout.lines().next().unwrap().ends_with(", in sync"), "{}", status.stdout);
    let unguarded = director.lvs("apply --confirm 60s");
    assert_eq!(unguarded.status, 1);
    assert!(unguarded.all().contains("nothing is put on trial"), "{}", unguarded.all());
    let again = director.lvs("confirm");
    assert_eq!(again.status, 1);
    assert!(again.all().contains("there is nothing to confirm"), "{}", again.all());
}

#[test]
#[ignore = "needs root: run tests/run"]
fn the_end_of_a_login_saves_no_edit() {
    let (director, _neighbour, _) = edited();
    // A terminal that closes sends SIGHUP.
    director.sh(&format!("script -qec '{LVS_NOTIFY} apply --confirm 3s VI_1' /dev/null </dev/null"));
    assert!(stands(&director));
    wait_for("the edit is taken back", PATIENCE, || is_taken_back(&director));
}

#[test]
#[ignore = "needs root: run tests/run"]
fn a_reboot_saves_no_edit() {
    let (director, _neighbour, edit) = edited();
    director.lvs_ok("apply --confirm 600s");
    // What a boot leaves of it: no process, nothing in /run, no address, and another place for all that is recorded.
    let place = |text: String| text.replace("\"place\":\"", "\"place\":\"0");
    let trial = director.read("/var/lib/lvs-notify/VI_1.trial");
    director.write("/var/lib/lvs-notify/VI_1.trial", &place(trial));
    director.sh("rm -r /run/lvs-notify/*; ip address flush to 192.0.2.100/31");
    for _ in 0..2 {
        assert_eq!(director.lvs("master VI_1").status, 4);
        assert!(is_taken_back(&director));
    }
    // Another text is another edit.
    director.desire("VI_1", &format!("{edit}# and more\n"));
    director.lvs_ok("apply");
    assert!(stands(&director));
    director.desire("VI_1", &edit);
    director.lvs_ok("apply");
}

#[test]
#[ignore = "needs root: run tests/run"]
fn whatever_the_file_says_by_then_the_edit_is_taken_back() {
    let (director, _neighbour, edit) = edited();
    let whole = director.read("/var/lib/lvs-notify/VI_1.yaml");
    let other = edit.replace(ADDED, "192.0.2.102");
    for text in [None, Some("vips: ["), Some(&*whole), Some(&*other)] {
        director.desire("VI_1", &edit);
        director.lvs_ok("apply --confirm 2s");
        assert!(stands(&director));
        match text {
            None => director.sh("rm /etc/lvs-notify/VI_1.yaml"),
            Some(text) => {
                director.desire("VI_1", text);
                String::new()
            }
        };
        wait_for("the edit is taken back", PATIENCE, || is_taken_back(&director));
        assert!(places(&director, "192.0.2.102").is_empty(), "what nobody has applied is not");
        assert_eq!(director.read("/var/lib/lvs-notify/VI_1.yaml"), whole);
        // From now on another text counts.
        wait_for("its process ends", PATIENCE, || !waits());
        director.desire("VI_1", &whole);
        director.lvs_ok("apply");
        assert_eq!(director.lvs("status").status, 0);
    }
}

#[test]
#[ignore = "needs root: run tests/run"]
fn nothing_makes_an_edit_good_before_it_is_confirmed() {
    let (director, _neighbour, edit) = edited();
    director.lvs("rehearse");
    director.lvs_ok("apply --confirm 60s");
    for command in ["apply", "master", "backup", "rehearse", "master"] {
        director.lvs(command);
        assert_ne!(director.read("/var/lib/lvs-notify/VI_1.yaml"), edit, "{command}");
    }
    // A BACKUP, too, keeps what is confirmed, when it has rehearsed it.
    director.lvs_ok("backup");
    director.lvs_ok("confirm");
    let ready = director.lvs("status").stdout.contains("Takeover: READY");
    assert_eq!(director.read("/var/lib/lvs-notify/VI_1.yaml") == edit, ready);

    // Somebody holds the lock when the time is over.
    director.lvs_ok("master");
    director.lvs_ok("apply");
    director.desire("VI_1", &edit.replace(ADDED, "192.0.2.102"));
    director.lvs_ok("apply --confirm 2s");
    assert_eq!(places(&director, "192.0.2.102").len(), 2);
    let mut holder = director.start("flock /run/lvs-notify/lock sleep 9");
    std::thread::sleep(std::time::Duration::from_secs(8));
    assert_eq!(places(&director, "192.0.2.102").len(), 2, "nobody could");
    holder.wait();
    wait_for("the edit is taken back", PATIENCE, || {
        stands(&director) && places(&director, "192.0.2.102").is_empty()
    });
}

#[test]
#[ignore = "needs root: run tests/run"]
fn a_file_elsewhere_is_confirmed_by_its_instance() {
    let (director, _neighbour, edit) = edited();
    director.write("/root/site.yaml", &edit);
    let told = director.lvs_ok("--config /root/site.yaml apply --confirm 60s VI_1");
    let (_, command) = told.trim_end().split_once("unless: lvs-notify ").unwrap();
    assert!(director.lvs("status VI_1").stdout.contains(command), "{command}");
    let confirmed = director.lvs_ok(command);
    assert!(confirmed.starts_with("confirmed: the edit stays\n"), "{confirmed}");
    assert!(stands(&director));
}

#[test]
#[ignore = "needs root: run tests/run"]
fn without_a_way_back_nothing_is_tried() {
    let (director, _neighbour, edit) = edited();
    director.desire("VI_1", &edit.replace("interface: eth0", "interface: [eth0]"));
    let ran = director.lvs("apply --confirm 60s");
    assert_eq!(ran.status, 4, "{}", ran.all());
    director.desire("VI_1", &edit);
    director.sh("rm /var/lib/lvs-notify/VI_1.yaml");
    let ran = director.lvs("apply --confirm 60s");
    assert_eq!(ran.status, 1, "{}", ran.all());
    assert!(ran.all().contains("there is no last good copy to go back to"), "{}", ran.all());
    assert!(is_taken_back(&director), "nothing was applied");
    assert_eq!(director.sh("ls /var/lib/lvs-notify | grep trial || true"), "");
    director.sh("rm -r /run/lvs-notify/*");
    let ran = director.lvs("apply --confirm 60s");
    assert_eq!(ran.status, 1, "without a role: {}", ran.all());
}

#[test]
#[ignore = "needs root: run tests/run"]
fn notifications_and_waiting_runs_save_no_edit() {
    let (director, _neighbour, edit) = edited();
    let again = || {
        director.desire("VI_1", &edit);
        director.lvs_ok("apply --confirm 3s");
        assert!(stands(&director));
    };
    let taken_back = |what: &str| {
        wait_for(what, PATIENCE, || is_taken_back(&director));
        wait_for("its process ends", PATIENCE, || !waits());
        assert!(is_taken_back(&director), "{what}");
    };
    // Newer notifications than its process.
    again();
    for command in ["backup", "master"] {
        director.lvs_ok(command);
    }
    assert!(stands(&director));
    taken_back("after notifications");

    // Runs that have read the file before the end, and have the lock after it.
    again();
    let mut holder = director.start("flock /run/lvs-notify/lock sleep 4");
    std::thread::sleep(std::time::Duration::from_secs(1));
    let mut late: Vec<_> = (0..4).map(|_| director.start(&format!("{LVS_NOTIFY} apply VI_1"))).collect();
    holder.wait();
    late.iter_mut().for_each(|run| _ = run.wait());
    taken_back("after late runs");

    // A run that has begun before the end, and carries the edit out after it: only who went back has taken it back.
    again();
    director.ok(&format!("ip address del {ADDED}/32 dev eth0"));
    let late = Stopped::at("sendmsg", &director, "apply VI_1");
    std::thread::sleep(std::time::Duration::from_secs(4));
    late.goes_on();
    taken_back("after a run over the end");

    // By the name that a service has, and after the first process was killed.
    again();
    kill_waiting(&director);
    let mut service = director.start(&format!("{LVS_NOTIFY} apply --take-back VI_1"));
    taken_back("by a service");
    assert_eq!(service.wait(), 0);

    // An attempt that fails leaves the trial as it was.
    director.desire("VI_1", &edit);
    director.lvs_ok("apply --confirm 12s");
    let mut holder = director.start("flock /run/lvs-notify/lock sleep 7");
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(director.lvs("apply --confirm 60s").status, 1, "nobody gets the lock");
    holder.wait();
    taken_back("after a failed attempt");
}

#[test]
#[ignore = "needs root: run tests/run"]
fn a_way_back_that_is_gone_or_broken_stops_no_takeover() {
    let (director, _neighbour, edit) = edited();
    let whole = director.read("/var/lib/lvs-notify/VI_1.yaml");
    let good = "/var/lib/lvs-notify/VI_1.yaml";
    for copy in [None, Some("vips: [".to_owned()), Some(whole.replace("interface: eth0", "interface: eth9"))]
    {
        director.desire("VI_1", &whole);
        director.write(good, &whole);
        director.lvs("apply");
        director.desire("VI_1", &edit);
        director.lvs_ok("apply --confirm 1s");
        match &copy {
            None => _ = director.sh(&format!("rm {good}")),
            Some(text) => director.write(good, text),
        }
        wait_for("its process ends", PATIENCE, || !waits());
        // Whatever it could go back to, the next edit counts, and so does a takeover.
        director.desire("VI_1", &format!("{edit}# once more\n"));
        director.lvs("backup");
        director.lvs("master");
        wait_for("the VIPs", PATIENCE, || stands(&director));
        assert_eq!(director.lvs("status").status, 0, "{copy:?}");
    }
    // Nor when nobody waits for the end: a run that is called then ends, and goes by the file.
    director.desire("VI_1", &whole);
    director.lvs_ok("apply");
    director.desire("VI_1", &edit);
    director.lvs_ok("apply --confirm 1s");
    kill_waiting(&director);
    director.sh(&format!("rm {good}; ip address flush to 192.0.2.100/31; sleep 1.5"));
    director.lvs_ok("master");
    assert!(stands(&director));
    director.sh("rm /var/lib/lvs-notify/*");
    director.desire("VI_1", &whole);
    director.lvs_ok("apply");
    director.desire("VI_1", &edit);

    // What is confirmed and cannot be written down is not confirmed.
    director.lvs_ok("apply --confirm 60s");
    director.ok("mount -o remount,ro /var/lib/lvs-notify");
    let ran = director.lvs("confirm");
    assert_eq!(ran.status, 1, "{}", ran.all());
    assert!(ran.all().contains("the edit will be taken back"), "{}", ran.all());
    director.ok("mount -o remount,rw /var/lib/lvs-notify");
    director.lvs_ok("confirm");
}

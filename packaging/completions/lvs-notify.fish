# Completes lvs-notify's commands and options in fish. Made from the program's own definitions by packaging/generate.rs; do not edit.
# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_lvs_notify_global_optspecs
    string join \n c/config= h/help V/version
end

function __fish_lvs_notify_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_lvs_notify_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_lvs_notify_using_subcommand
    set -l cmd (__fish_lvs_notify_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c lvs-notify -n "__fish_lvs_notify_needs_command" -s c -l config -d 'Desired-state file, instead of the instance\'s in /etc/lvs-notify [env: LVS_NOTIFY_CONFIG]' -r -F
complete -c lvs-notify -n "__fish_lvs_notify_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c lvs-notify -n "__fish_lvs_notify_needs_command" -s V -l version -d 'Print version'
complete -c lvs-notify -n "__fish_lvs_notify_needs_command" -f -a "master" -d 'This director became MASTER: serve the VIPs'
complete -c lvs-notify -n "__fish_lvs_notify_needs_command" -f -a "backup" -d 'Another director is MASTER: stop serving the VIPs'
complete -c lvs-notify -n "__fish_lvs_notify_needs_command" -f -a "fault" -d 'An interface or a tracked script failed: stop serving the VIPs'
complete -c lvs-notify -n "__fish_lvs_notify_needs_command" -f -a "stop" -d 'keepalived stops: stop serving the VIPs'
complete -c lvs-notify -n "__fish_lvs_notify_needs_command" -f -a "notify" -d 'The four arguments that keepalived appends to a generic `notify` script'
complete -c lvs-notify -n "__fish_lvs_notify_needs_command" -f -a "apply" -d 'Reconcile again to the newest notification\'s role, after an edit of the file or from a timer'
complete -c lvs-notify -n "__fish_lvs_notify_needs_command" -f -a "confirm" -d 'Keep the edit that `apply --confirm` has put on trial'
complete -c lvs-notify -n "__fish_lvs_notify_needs_command" -f -a "drain" -d 'Give a real server no new connections; existing ones live on, until `undrain`'
complete -c lvs-notify -n "__fish_lvs_notify_needs_command" -f -a "undrain" -d 'Lift what `drain` has begun'
complete -c lvs-notify -n "__fish_lvs_notify_needs_command" -f -a "fifo" -d 'Follow keepalived\'s notify FIFO: the same as the role commands, with events in their order'
complete -c lvs-notify -n "__fish_lvs_notify_needs_command" -f -a "plan" -d 'Show what would change, with the equivalent commands; changes nothing'
complete -c lvs-notify -n "__fish_lvs_notify_needs_command" -f -a "rehearse" -d 'Carry out a takeover in a private network namespace: whether it would succeed, and how long it takes'
complete -c lvs-notify -n "__fish_lvs_notify_needs_command" -f -a "status" -d 'Tell the role, whether the kernel is in sync, and why not'
complete -c lvs-notify -n "__fish_lvs_notify_needs_command" -f -a "check" -d 'Find what is wrong with desired-state files, keepalived.conf and this host; changes nothing'
complete -c lvs-notify -n "__fish_lvs_notify_needs_command" -f -a "import" -d 'Write a desired-state file from what exists, to standard output'
complete -c lvs-notify -n "__fish_lvs_notify_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand master" -s c -l config -d 'Desired-state file, instead of the instance\'s in /etc/lvs-notify [env: LVS_NOTIFY_CONFIG]' -r -F
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand master" -l dry-run -d 'Show what would change, and change nothing'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand master" -s h -l help -d 'Print help'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand backup" -s c -l config -d 'Desired-state file, instead of the instance\'s in /etc/lvs-notify [env: LVS_NOTIFY_CONFIG]' -r -F
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand backup" -l dry-run -d 'Show what would change, and change nothing'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand backup" -s h -l help -d 'Print help'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand fault" -s c -l config -d 'Desired-state file, instead of the instance\'s in /etc/lvs-notify [env: LVS_NOTIFY_CONFIG]' -r -F
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand fault" -l dry-run -d 'Show what would change, and change nothing'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand fault" -s h -l help -d 'Print help'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand stop" -s c -l config -d 'Desired-state file, instead of the instance\'s in /etc/lvs-notify [env: LVS_NOTIFY_CONFIG]' -r -F
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand stop" -l dry-run -d 'Show what would change, and change nothing'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand stop" -s h -l help -d 'Print help'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand notify" -s c -l config -d 'Desired-state file, instead of the instance\'s in /etc/lvs-notify [env: LVS_NOTIFY_CONFIG]' -r -F
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand notify" -s h -l help -d 'Print help'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand apply" -l confirm -d 'Take the edit back after this time, by itself, unless `lvs-notify confirm` comes before' -r
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand apply" -s c -l config -d 'Desired-state file, instead of the instance\'s in /etc/lvs-notify [env: LVS_NOTIFY_CONFIG]' -r -F
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand apply" -l dry-run -d 'Show what would change, and change nothing'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand apply" -l take-back -d 'Wait for the end of a trial, and take the edit back'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand apply" -l all -d 'Every instance, one after the other'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand apply" -s h -l help -d 'Print help'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand confirm" -s c -l config -d 'Desired-state file, instead of the instance\'s in /etc/lvs-notify [env: LVS_NOTIFY_CONFIG]' -r -F
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand confirm" -s h -l help -d 'Print help'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand drain" -l service -d 'Only in this service: VIP:PORT, tcp/VIP:PORT, udp/VIP:PORT, sctp/VIP:PORT or fwmark/MARK' -r
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand drain" -l for -d 'Lift it by itself after this time, at the next run: a notification, or `apply` from a timer' -r
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand drain" -s c -l config -d 'Desired-state file, instead of the instance\'s in /etc/lvs-notify [env: LVS_NOTIFY_CONFIG]' -r -F
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand drain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand undrain" -l all -d 'Every real server' -r
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand undrain" -s c -l config -d 'Desired-state file, instead of the instance\'s in /etc/lvs-notify [env: LVS_NOTIFY_CONFIG]' -r -F
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand undrain" -s h -l help -d 'Print help'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand fifo" -s c -l config -d 'Desired-state file, instead of the instance\'s in /etc/lvs-notify [env: LVS_NOTIFY_CONFIG]' -r -F
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand fifo" -s h -l help -d 'Print help'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand plan" -l current -d 'Plan against an observation saved with `status --json` instead of this kernel' -r -F
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand plan" -s c -l config -d 'Desired-state file, instead of the instance\'s in /etc/lvs-notify [env: LVS_NOTIFY_CONFIG]' -r -F
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand plan" -l json -d 'Print the plan as JSON'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand plan" -s h -l help -d 'Print help'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand rehearse" -s c -l config -d 'Desired-state file, instead of the instance\'s in /etc/lvs-notify [env: LVS_NOTIFY_CONFIG]' -r -F
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand rehearse" -s h -l help -d 'Print help'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand status" -l watch -d 'Print again every so many seconds' -r
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand status" -s c -l config -d 'Desired-state file, instead of the instance\'s in /etc/lvs-notify [env: LVS_NOTIFY_CONFIG]' -r -F
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand status" -l json -d 'Print everything as JSON'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand status" -l prometheus -d 'Print metrics for node_exporter\'s textfile collector'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand status" -l probe -d 'Ask the network who answers for the VIPs; two hosts that do are a split brain'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand status" -s h -l help -d 'Print help'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand check" -l keepalived-conf -d 'keepalived\'s configuration, with its includes (default, for this host: /etc/keepalived/keepalived.conf)' -r -F
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand check" -s c -l config -d 'Desired-state file, instead of the instance\'s in /etc/lvs-notify [env: LVS_NOTIFY_CONFIG]' -r -F
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand check" -l host -d 'Look at this host even if FILEs are named that are not its own'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand check" -l json -d 'Print the findings as JSON'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand import" -l from -d 'What to read' -r -f -a "kernel\t'The running kernel; nothing is lost'
ipvsadm-save\t'What `ipvsadm -S` or `ipvsadm-save` wrote, with or without -n'
keepalived-conf\t'The virtual_server blocks of a keepalived.conf'"
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand import" -l run -d 'Let a script run, with all that follows as its arguments, and read what it has made' -r
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand import" -l limit -d 'How long the script may run; stands before --run' -r
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand import" -s c -l config -d 'Desired-state file, instead of the instance\'s in /etc/lvs-notify [env: LVS_NOTIFY_CONFIG]' -r -F
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand import" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand help; and not __fish_seen_subcommand_from master backup fault stop notify apply confirm drain undrain fifo plan rehearse status check import help" -f -a "master" -d 'This director became MASTER: serve the VIPs'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand help; and not __fish_seen_subcommand_from master backup fault stop notify apply confirm drain undrain fifo plan rehearse status check import help" -f -a "backup" -d 'Another director is MASTER: stop serving the VIPs'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand help; and not __fish_seen_subcommand_from master backup fault stop notify apply confirm drain undrain fifo plan rehearse status check import help" -f -a "fault" -d 'An interface or a tracked script failed: stop serving the VIPs'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand help; and not __fish_seen_subcommand_from master backup fault stop notify apply confirm drain undrain fifo plan rehearse status check import help" -f -a "stop" -d 'keepalived stops: stop serving the VIPs'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand help; and not __fish_seen_subcommand_from master backup fault stop notify apply confirm drain undrain fifo plan rehearse status check import help" -f -a "notify" -d 'The four arguments that keepalived appends to a generic `notify` script'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand help; and not __fish_seen_subcommand_from master backup fault stop notify apply confirm drain undrain fifo plan rehearse status check import help" -f -a "apply" -d 'Reconcile again to the newest notification\'s role, after an edit of the file or from a timer'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand help; and not __fish_seen_subcommand_from master backup fault stop notify apply confirm drain undrain fifo plan rehearse status check import help" -f -a "confirm" -d 'Keep the edit that `apply --confirm` has put on trial'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand help; and not __fish_seen_subcommand_from master backup fault stop notify apply confirm drain undrain fifo plan rehearse status check import help" -f -a "drain" -d 'Give a real server no new connections; existing ones live on, until `undrain`'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand help; and not __fish_seen_subcommand_from master backup fault stop notify apply confirm drain undrain fifo plan rehearse status check import help" -f -a "undrain" -d 'Lift what `drain` has begun'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand help; and not __fish_seen_subcommand_from master backup fault stop notify apply confirm drain undrain fifo plan rehearse status check import help" -f -a "fifo" -d 'Follow keepalived\'s notify FIFO: the same as the role commands, with events in their order'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand help; and not __fish_seen_subcommand_from master backup fault stop notify apply confirm drain undrain fifo plan rehearse status check import help" -f -a "plan" -d 'Show what would change, with the equivalent commands; changes nothing'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand help; and not __fish_seen_subcommand_from master backup fault stop notify apply confirm drain undrain fifo plan rehearse status check import help" -f -a "rehearse" -d 'Carry out a takeover in a private network namespace: whether it would succeed, and how long it takes'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand help; and not __fish_seen_subcommand_from master backup fault stop notify apply confirm drain undrain fifo plan rehearse status check import help" -f -a "status" -d 'Tell the role, whether the kernel is in sync, and why not'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand help; and not __fish_seen_subcommand_from master backup fault stop notify apply confirm drain undrain fifo plan rehearse status check import help" -f -a "check" -d 'Find what is wrong with desired-state files, keepalived.conf and this host; changes nothing'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand help; and not __fish_seen_subcommand_from master backup fault stop notify apply confirm drain undrain fifo plan rehearse status check import help" -f -a "import" -d 'Write a desired-state file from what exists, to standard output'
complete -c lvs-notify -n "__fish_lvs_notify_using_subcommand help; and not __fish_seen_subcommand_from master backup fault stop notify apply confirm drain undrain fifo plan rehearse status check import help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'

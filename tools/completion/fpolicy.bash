# Bash completion for setfpolicy, getfpolicy, queryfpolicy, migratejob, policyctl and policyd. Installed under each name.
# Options come from --help, so that they are always those of the program.

_fpolicy_policies() {
  # Items after the first follow a comma. Node sets are left to the user.
  local head=${cur%"${cur##*,}"} item
  compopt -o nospace
  for item in bind: prefer: interleave: default migrate=yes migrate=private migrate=no pin; do
    COMPREPLY+=("$head$item")
  done
  # shellcheck disable=SC2207 # no word here has spaces
  COMPREPLY=($(compgen -W '${COMPREPLY[*]}' -- "$cur"))
  # A colon or an equals sign breaks words.
  __ltrim_colon_completions "$cur"
}

_fpolicy() {
  local cur prev words cword split
  _init_completion -s -n := || return
  local command=${1##*/} word given=0
  # One letter means one thing to one command, another to the next.
  case $command:$prev in
  *:--restore | *:--reference | *:--database | *:--socket | *:--config)
    _filedir
    return
    ;;
  *:--rules | *:--state-dir)
    _filedir -d
    return
    ;;
  *:--pid | *:-p)
    _pids
    return
    ;;
  migratejob:--from | migratejob:-f | migratejob:--to | migratejob:-t | policyctl:--from | policyctl:--to | policyctl:-t)
    # shellcheck disable=SC2207
    COMPREPLY=($(compgen -W 'all cpu cpuless' -- "$cur"))
    return
    ;;
  queryfpolicy:--job | queryfpolicy:-j | migratejob:--cgroup | migratejob:-c | policyctl:--cgroup | policyctl:-c)
    # shellcheck disable=SC2207
    COMPREPLY=($(cd /sys/fs/cgroup 2>/dev/null && compgen -d -S / -- "$cur"))
    compopt -o nospace
    return
    ;;
  esac
  $split && return
  for word in "${words[@]:1:cword-1}"; do
    case $word in
    -x | --remove | --restore* | --from-rules | --from-catalogue | --reference*) given=1 ;;
    -*) ;;
    *) given=1 ;;
    esac
  done
  if [[ $cur == -* ]]; then
    local help=("$1")
    [[ $command != policyctl || $given -eq 0 ]] || help+=("${words[1]}")
    # shellcheck disable=SC2207
    COMPREPLY=($(compgen -W '$("${help[@]}" --help 2>/dev/null | _parse_help -)' -- "$cur"))
    [[ ${COMPREPLY-} != *= ]] || compopt -o nospace
  elif [[ $command == setfpolicy && $given -eq 0 ]]; then
    _fpolicy_policies
  elif [[ $command == policyctl && $given -eq 0 ]]; then
    # shellcheck disable=SC2207
    COMPREPLY=($(compgen -W 'status metrics jobs pins events apply migrate reload check gc backup' -- "$cur"))
  elif [[ $command == migratejob || ${words[1]} == migrate ]]; then
    return # it takes options alone
  else
    _filedir
  fi
} && complete -F _fpolicy setfpolicy getfpolicy queryfpolicy migratejob policyctl policyd

# SPDX-License-Identifier: Apache-2.0
# bash completion of blkmirror: nouns, verbs and options from its help, live names from the daemon.

_blkmirror_words() {
	blkmirror "$@" --help 2>/dev/null | sed -nE 's/^  ([a-z][a-z-]*) .*/\1/p' | sort -u
}

_blkmirror_options() {
	blkmirror "$@" --help 2>/dev/null | sed -nE 's/^  (--[a-z-]+).*/\1/p'
}

# The first column of a list, as it is printed when stdout is no terminal.
_blkmirror_names() {
	blkmirror "$1" list 2>/dev/null | cut -f1
}

# Datastores as "DS:", or what lies in a folder of one.
_blkmirror_paths() {
	local word=$1 ds=${1%%:*} folder
	if [[ $word != *:* ]]; then
		_blkmirror_names datastore | sed 's/$/:/'
		return
	fi
	folder=${word#*:}
	[[ $folder == */* ]] && folder=${folder%/*} || folder=
	blkmirror datastore files "$ds:$folder" 2>/dev/null | awk -F'\t' -v at="$ds:${folder:+$folder/}" \
		'$2 == "dir" { print at $1 "/" } $2 == "disk" || $2 == "vmx" { print at $1 }'
}

_blkmirror() {
	local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
	local noun=${COMP_WORDS[1]:-} verb=${COMP_WORDS[2]:-} words=
	COMPREPLY=()
	# bash splits at ':', which is part of our names
	if declare -F _get_comp_words_by_ref >/dev/null; then
		local -a COMP_ALL
		_get_comp_words_by_ref -n : -c word -p previous -w COMP_ALL 2>/dev/null &&
			noun=${COMP_ALL[1]:-} verb=${COMP_ALL[2]:-}
	fi
	if [[ $COMP_CWORD -eq 1 ]]; then
		words="$(_blkmirror_words) --json --socket --help --version"
	elif [[ $COMP_CWORD -eq 2 && $noun =~ ^(datastore|disk|vm|host|task)$ ]]; then
		words="$(_blkmirror_words "$noun") --help"
	elif [[ $word == -* ]]; then
		if [[ $noun == events || $noun == recover ]]; then verb=; fi
		words="$(_blkmirror_options "$noun" $verb) --json --help"
	else
		case $previous in
		--datastore | --config-to) words=$(_blkmirror_names datastore) ;;
		--controller) words="virtio pvscsi lsilogic lsisas1068" ;;
		--to) if [[ $noun == vm ]]; then words=$(_blkmirror_names datastore); else
			words="$(_blkmirror_names datastore) $(_blkmirror_paths "$word")"; fi ;;
		--disk) words= ;;
		--provision) words="same thin thick eager" ;;
		--mode) words="sync async" ;;
		--export) words="nbd vhost-user" ;;
		--priority) words="low normal high" ;;
		--keep) words="source target" ;;
		--socket | --secret-file | --kernel | --initrd)
			mapfile -t COMPREPLY < <(compgen -f -- "$word")
			return
			;;
		*)
			case "$noun $verb" in
			"datastore add") ;;
			datastore\ *) words=$(_blkmirror_names datastore) ;;
			"host add") ;;
			host\ *) words=$(_blkmirror_names host) ;;
			"disk detach") words=$(_blkmirror_names disk) ;;
			"disk show" | "disk relocate") words="$(_blkmirror_names disk) $(_blkmirror_paths "$word")" ;;
			"disk import" | "disk export")
				words=$(_blkmirror_paths "$word")
				mapfile -t COMPREPLY < <(compgen -f -- "$word")
				;;
			disk\ *) words=$(_blkmirror_paths "$word") ;;
			"vm register") words=$(_blkmirror_paths "$word") ;;
			"vm create") ;;
			vm\ *) words=$(_blkmirror_names vm) ;;
			task\ *) words=$(_blkmirror_names task) ;;
			recover\ *) words="list $(blkmirror recover list 2>/dev/null | cut -f1)" ;;
			esac
			;;
		esac
	fi
	mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -W "$words" -- "$word")
	if declare -F __ltrim_colon_completions >/dev/null; then
		__ltrim_colon_completions "$word"
	fi
}

complete -F _blkmirror blkmirror
